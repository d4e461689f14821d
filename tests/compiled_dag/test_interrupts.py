"""Ctrl-C on any line of a graph's beginning or end: what it breaks off, something else finishes."""

from __future__ import annotations

import _thread
import gc
import itertools
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import collective.group
import collective.header
import compiled_dag.awaiting
import compiled_dag.channel.graph_segment
import compiled_dag.channel.pool
import compiled_dag.channel.reader
import compiled_dag.channel.writer
import compiled_dag.deployment
import compiled_dag.driver
import compiled_dag.fetch
import compiled_dag.gauge
import compiled_dag.groups
import compiled_dag.inlet
import compiled_dag.observer
import compiled_dag.ref
import compiled_dag.results
import compiled_dag.shm.segment
import compiled_dag.submit
from collective import allreduce
from compiled_dag import CompiledDAGRef, InputNode, MultiOutputNode
from compiled_dag.interrupts import RETURNS_ARE_CHECKED, Unswallowed, finalizer
from tests.gates import Background, Interrupt, ask, compiled, one_method, soon
from tests.graphs import Worker, chain

BEGINNING = (compiled_dag.driver, compiled_dag.fetch, compiled_dag.submit)
USING = (
    compiled_dag.fetch,
    compiled_dag.ref,
    compiled_dag.results,
    compiled_dag.awaiting,
    compiled_dag.submit,
    compiled_dag.inlet,
    compiled_dag.channel.reader,
    compiled_dag.channel.writer,
    compiled_dag.channel.pool,
)
FORMING = (compiled_dag.groups, collective.group, collective.header)
COMING_UP = (
    compiled_dag.deployment,
    compiled_dag.channel.graph_segment,
    compiled_dag.shm.segment,
    compiled_dag.gauge,
    compiled_dag.observer,
)
ENDING = (compiled_dag.driver, compiled_dag.deployment, collective.group)


def released(host, actors) -> bool:
    """Tell whether nobody has anything of a graph any more."""
    in_actors = [actor.resources for actor in actors if actor.resources]
    return not (in_actors or host._watchers or host._enders)


def assert_released(host, actors) -> None:
    assert host.waiter.until(lambda: released(host, actors), lambda: None, soon())
    assert [ask(actor) for actor in actors] == [5] * len(actors)


def both(actors):
    with InputNode() as inp:
        return MultiOutputNode(allreduce.bind([actor.grad.bind(inp) for actor in actors]))


def all_of(refs):
    """Return what tells whether all are ready."""
    return lambda: all(ref.ready() for ref in refs)


EVERY = pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.soak)])
"""Interrupted at every thirteenth line, or at each."""


@EVERY
@pytest.mark.parametrize("build", [chain, both])
@pytest.mark.parametrize("last", ["teardown", "session's end", "collector"])
def test_a_teardown_that_was_interrupted_anywhere_is_finished(host, build, last, step) -> None:
    actors = [host.actor(Worker(number)) for number in range(2)]
    torch.set_num_threads(1)
    for line in itertools.count(1, step):
        graph = build(actors).experimental_compile()
        with Interrupt(ENDING, line) as interrupt:
            graph.teardown()
        if last == "teardown":
            graph.teardown()
            assert graph.is_teardown
        elif last == "session's end":
            for end in list(host._enders.values()):
                end(time.monotonic() + 120)
        del graph
        gc.collect()
        assert_released(host, actors)
        if not interrupt.raised:
            break
    assert line > 20


def get_each(graph, refs) -> None:
    for ref in refs:
        ref.get()


def get_later_first(graph, refs) -> None:
    get_each(graph, refs[::-1])


def get_all(graph, refs) -> None:
    CompiledDAGRef.get_many(refs)


def poll(graph, refs) -> None:
    CompiledDAGRef.get_many(refs, timeout=30)


def await_each(graph, refs) -> None:
    for ref in refs:
        for _ in ref.__await__():
            pass


def execute(graph, refs) -> None:
    graph.execute(0)


def execute_async(graph, refs) -> None:
    for _ in graph.execute_async(0).__await__():
        pass


# Python 3.10 also looks for Ctrl-C between a coroutine's making and its `await`, and says so.
OF_OLD = ["ignore:coroutine:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"]


@pytest.mark.filterwarnings(*(OF_OLD if RETURNS_ARE_CHECKED else []))
@pytest.mark.parametrize("policy", ["raise", "block", "queue"])
@pytest.mark.parametrize(
    "use", [get_each, get_later_first, get_all, poll, await_each, execute, execute_async]
)
def test_after_an_interrupt_anywhere_in_a_use_other_threads_get_and_execute(
    host, use, policy
) -> None:
    actors = [host.actor(Worker(number)) for number in range(3)]
    with InputNode() as inp:
        output = MultiOutputNode([actor.add.bind(inp) for actor in actors])
    with output.experimental_compile(_capacity_policy=policy) as graph:
        for place in itertools.count(1):
            refs = graph.execute(place)
            assert host.waiter.until(all_of(refs), lambda: None, soon())
            with Interrupt(USING, place) as interrupt:
                use(graph, refs)
            wanted = [place, place + 1, place + 2]
            assert Background(CompiledDAGRef.get_many, refs).result() == wanted
            assert CompiledDAGRef.get_many(refs) == wanted
            assert Background(execute_and_get, graph, place).result() == wanted
            if not interrupt.raised:
                break
    assert place > 10


def execute_and_get(graph, value):
    return CompiledDAGRef.get_many(graph.execute(value))


@pytest.mark.parametrize("size", [1000, 20_000])
def test_an_array_whose_get_was_interrupted_anywhere_is_not_overwritten(host, size) -> None:
    with compiled(host) as graph:
        for place in itertools.count(1):
            ref = graph.execute(np.full(size, place))
            assert host.waiter.until(ref.ready, lambda: None, soon())
            with Interrupt(USING, place) as interrupt:
                ref.get()
            later = graph.execute(np.full(size, -place))
            assert host.waiter.until(later.ready, lambda: None, soon())
            assert set(ref.get()) == {place}
            assert set(later.get()) == {-place}
            if not interrupt.raised:
                break
    assert place > 10


@pytest.mark.parametrize("grows", [False, True])
def test_after_an_interrupt_anywhere_in_sending_an_array_no_slot_is_lost(host, grows) -> None:
    with compiled(host) as graph:
        for place in itertools.count(1):
            size = 2000 * (place if grows else 1)
            with Interrupt(USING, place) as interrupt:
                graph.execute(np.full(size, place))
            assert Background(graph.execute(np.full(size, -place)).get).result().sum() < 0
            if not interrupt.raised:
                break
        ((writer, _),) = graph._submission.inlet.writers
        pool = writer._pool
        known = {(extent.index, slot) for extent, slot in [*pool._free, *pool._busy]}
        assert set(pool._uses) <= known
        assert len(known) == len(pool._free) + len(pool._busy)
    assert place > 30


@EVERY
def test_a_compile_that_was_interrupted_when_the_graph_was_up_is_undone(host, step) -> None:
    actor = host.actor(Worker())
    for line in itertools.count(1, step):
        graph: Any = None
        with Interrupt(BEGINNING, line) as interrupt:
            graph = one_method(actor).experimental_compile()
        if not interrupt.raised:
            break
        graph = None
        gc.collect()
        assert_released(host, [actor])
    assert line > 20
    graph.teardown()


@EVERY
def test_a_compile_that_was_interrupted_while_its_group_formed_leaves_none(host, step) -> None:
    actors = [host.actor(Worker(number)) for number in range(2)]
    torch.set_num_threads(1)
    both(actors).experimental_compile().teardown()  # what the session keeps is there now
    before = memory_files()
    for line in itertools.count(1, step):
        graph: Any = None
        with Interrupt(FORMING, line) as interrupt:
            graph = both(actors).experimental_compile()
        if not interrupt.raised:
            break
        graph = None  # pressed at the last place, Ctrl-C finds all over, and the graph is whole
        gc.collect()
        assert_released(host, actors)
        assert host.waiter.until(lambda: memory_files() == before, lambda: None, soon())
    assert line > 100
    graph.teardown()


@EVERY
def test_a_compile_that_was_interrupted_while_it_came_up_leaves_none(host, step) -> None:
    actor = host.actor(Worker())
    one_method(actor).experimental_compile().teardown()  # what the session keeps is there now
    before = memory_files()
    for line in itertools.count(1, step):
        graph: Any = None
        with Interrupt(COMING_UP, line) as interrupt:
            graph = one_method(actor).experimental_compile()
        if not interrupt.raised:
            break
        graph = None  # pressed at the last place, Ctrl-C finds all over, and the graph is whole
        gc.collect()
        assert_released(host, [actor])
        assert host.waiter.until(lambda: memory_files() == before, lambda: None, soon())
    assert line > 100
    graph.teardown()


# --- in finalizers --------------------------------------------------------------------------------


class Noting:
    """Notes what its `__del__` has done."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    @finalizer
    def __del__(self) -> None:
        notes, self.notes = self.notes, []
        notes.append("done")


class Foreign:
    def __del__(self) -> None:
        str(self)


@pytest.fixture
def unswallowed():
    told: list[object] = []
    sys.unraisablehook = told.append
    unswallowed = Unswallowed()
    yield told
    unswallowed.end()
    assert sys.unraisablehook == told.append


def die_where_it_is_pressed(things: list[object]) -> None:
    """Press Ctrl-C right before the things end: their finalizers are what looks for it first."""
    for _ in map(_thread.interrupt_main, (signal.SIGINT,)):
        things.clear()


def test_ctrl_c_where_a_finalizer_begins_comes_after_it(unswallowed) -> None:
    notes: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        die_where_it_is_pressed([Noting(notes)])
    assert notes == ["done"]
    assert unswallowed == []


def test_ctrl_c_in_finalizers_of_others_and_in_callbacks_is_raised_after_them(unswallowed) -> None:
    watched = [Worker()]
    weak = weakref.ref(watched[0], lambda _: None)
    for things in ([Foreign()], [Foreign(), Foreign()], watched):
        with pytest.raises(KeyboardInterrupt):
            die_where_it_is_pressed(things)
    assert weak() is None
    assert unswallowed == []


def test_other_exceptions_in_finalizers_are_told_as_before(unswallowed) -> None:
    things = [type("Failing", (), {"__del__": lambda _: 1 / 0})()]
    things.clear()
    assert [one.exc_type for one in unswallowed] == [ZeroDivisionError]


def test_a_mapping_is_unmapped_although_ctrl_c_came_where_it_dies(unswallowed) -> None:
    segment = compiled_dag.shm.segment.Segment.create("compiled-dag-test", 1 << 16)
    mappings = [segment.map(0, 1 << 16)]
    segment.close()
    count = lambda: Path("/proc/self/maps").read_text().count("compiled-dag-test")  # noqa: E731
    before = count()
    with pytest.raises(KeyboardInterrupt):
        die_where_it_is_pressed(mappings)
    assert count() == before - 1


# --- what is there --------------------------------------------------------------------------------


def memory_files() -> list[str]:
    """List the descriptors of this process that are shared memory."""
    links = list(Path("/proc/self/fd").iterdir())
    # One is that of the listing itself, which is gone.
    return sorted(str(link) for link in links if link.is_symlink() and is_memory(link))


def is_memory(link: Path) -> bool:
    return "memfd:" in str(link.readlink())
