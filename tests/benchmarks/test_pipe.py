from __future__ import annotations

import pytest

from benchmarks import pipe


@pytest.mark.proc
def test_every_trip_is_timed():
    with pipe.ping_pong() as side:
        times = side.block(10)
    assert (side.name, len(times)) == ("floor", 10)
