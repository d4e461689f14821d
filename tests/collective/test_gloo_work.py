"""How ranks wait while gloo works. See `test_allreduce` for operations."""

from __future__ import annotations

import time

import pytest

from collective.gloo_work import Waiting
from collective.meetings import Meetings
from compiled_dag.shm.waiter import Site


@pytest.mark.parametrize("crowded", [True, False])
def test_ranks_that_outnumber_the_cores_sleep_in_meetings_while_operations_are_long(
    ranks, crowded
) -> None:
    group, site = ranks(2), Site()
    waiter = group.waiters[0]
    meetings = Meetings(group.headers[0], 0, waiter, site)
    waiting = Waiting(waiter, meetings, site, crowded=crowded)
    now = time.monotonic()
    waiting.learn(now - 1, soon=False)
    assert site.calm is crowded
    waiting.learn(now + 1, soon=True)  # no time at all
    assert not site.calm
