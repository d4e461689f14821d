from __future__ import annotations

import pytest

from tests.gates import Gate, compiled


@pytest.fixture
def gate():
    """The object of an actor that waits; what waits goes on when the test is over."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def gated(host, gate):
    """Compiles graphs of one method that waits at the gate."""
    graphs = []

    def make(**options):
        graphs.append(compiled(host, gate, "hold", **options))
        return graphs[-1]

    yield make
    gate.opened.set()
    while graphs:
        graphs.pop().teardown()
