from __future__ import annotations

import pytest

from tests.compiled_dag.channel.wires import Wire


@pytest.fixture
def wire():
    """Makes channels; closes them after the test."""
    made: list[Wire] = []

    def make(**options) -> Wire:
        made.append(Wire(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()
