from __future__ import annotations

import shutil

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


@pytest.fixture
def graphviz():
    """Skip where pictures cannot be drawn, with the reason."""
    if shutil.which("dot") is None:
        pytest.skip("Graphviz' program `dot` is not installed")
    return pytest.importorskip("graphviz", reason="the package graphviz is not installed")
