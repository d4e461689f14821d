from __future__ import annotations

import pytest

from tests.collective.parts import Ranks


@pytest.fixture
def ranks():
    """Makes groups; closes them after the test."""
    made: list[Ranks] = []

    def make(count: int, backend_bytes: int = 0) -> Ranks:
        made.append(Ranks(count, backend_bytes))
        return made[-1]

    yield make
    for one in made:
        one.close()
