"""A signal handler, or a destructor, that executes a graph on any line of an execute()."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pytest

from compiled_dag import GraphUsageError, InputNode
from tests.graphs import Worker

_FILES = ("submit.py", "inlet.py", "writer.py", "tickets.py", "driver.py")
PATIENCE_S = 60


@contextmanager
def running_at_line(number: int, action):
    """Run `action` once, on top of the line that comes as number so many; yields whether it ran."""
    passed, ran = 0, []

    def trace(frame, event, _arg):
        nonlocal passed
        if not frame.f_code.co_filename.endswith(_FILES):
            return None
        if event == "line":
            passed += 1
            if passed == number:
                sys.settrace(None)
                ran.append(True)
                action()
        return trace

    sys.settrace(trace)
    try:
        yield ran
    finally:
        sys.settrace(None)


def graph_of(actor):
    with InputNode() as inp:
        return actor.add.bind(inp)


@pytest.mark.parametrize("policy", ["raise", "block", "queue", "drop_oldest"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_inside_the_same_graph_it_works_or_is_refused(host, policy, shared) -> None:
    actor = host.actor(Worker(100))
    graph = graph_of(actor).experimental_compile(_capacity_policy=policy)
    other = graph_of(actor).experimental_compile() if shared else None
    inner, refused = [], 0

    def execute() -> None:
        nonlocal refused
        try:
            inner.append(graph.execute(1000))
        except GraphUsageError as error:
            if "in the middle of another execute()" not in str(error):
                raise
            refused += 1

    for line in range(1, 1000):
        if other is not None:
            assert other.execute(line).get(PATIENCE_S) == line + 100
        with running_at_line(line, execute) as ran:
            ref = graph.execute(line)
        assert ref.get(PATIENCE_S) == line + 100
        assert [one.get(PATIENCE_S) for one in inner] == [1100] * len(inner)
        inner.clear()
        if not ran:
            break
    assert ran == []
    assert 0 < refused < line
    graph.teardown()
    if other is not None:
        other.teardown()


def test_inside_another_graph_of_the_same_actor_it_works_or_is_refused(host) -> None:
    actor = host.actor(Worker(100))
    graph = graph_of(actor).experimental_compile()
    other = graph_of(actor).experimental_compile()
    inner, refused = [], 0

    def execute() -> None:
        nonlocal refused
        try:
            inner.append(other.execute(1000))
        except GraphUsageError:
            refused += 1

    for line in range(1, 1000):
        with running_at_line(line, execute) as ran:
            ref = graph.execute(line)
        assert ref.get(PATIENCE_S) == line + 100
        assert [one.get(PATIENCE_S) for one in inner] == [1100] * len(inner)
        inner.clear()
        if not ran:
            break
    assert 0 < refused < line
    assert other.execute(1).get(PATIENCE_S) == 101
    graph.teardown()
    other.teardown()
