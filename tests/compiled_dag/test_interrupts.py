"""Ctrl-C on any line of a graph's beginning or end: what it breaks off, something else finishes."""

from __future__ import annotations

import gc
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import collective.group
import collective.header
import compiled_dag.channel.graph_segment
import compiled_dag.channel.reader
import compiled_dag.deployment
import compiled_dag.driver
import compiled_dag.fetch
import compiled_dag.gauge
import compiled_dag.groups
import compiled_dag.observer
import compiled_dag.ref
import compiled_dag.shm.segment
import compiled_dag.submit
from collective import allreduce
from compiled_dag import CompiledDAGRef, InputNode, MultiOutputNode
from tests.gates import Interrupt, ask, one_method, soon
from tests.graphs import Worker, chain

BEGINNING = (compiled_dag.driver, compiled_dag.fetch, compiled_dag.submit)
GETTING = (compiled_dag.fetch, compiled_dag.ref, compiled_dag.channel.reader)
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
                end(time.monotonic() + 30)
        del graph
        gc.collect()
        assert_released(host, actors)
        if not interrupt.raised:
            break
    assert line > 20


@EVERY
def test_a_list_whose_get_was_interrupted_anywhere_can_be_got_again(host, step) -> None:
    actors = [host.actor(Worker(number)) for number in range(3)]
    with InputNode() as inp:
        output = MultiOutputNode([actor.add.bind(inp) for actor in actors])
    with output.experimental_compile() as graph:
        for line in itertools.count(1, step):
            refs = graph.execute(line)
            assert host.waiter.until(all_of(refs), lambda: None, soon())
            with Interrupt(GETTING, line) as interrupt:
                CompiledDAGRef.get_many(refs)
            assert CompiledDAGRef.get_many(refs) == [line, line + 1, line + 2]
            if not interrupt.raised:
                break
    assert line > 20


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
        gc.collect()
        assert_released(host, [actor])
        assert host.waiter.until(lambda: memory_files() == before, lambda: None, soon())
    assert line > 100
    graph.teardown()


def memory_files() -> list[str]:
    """List the descriptors of this process that are shared memory."""
    links = list(Path("/proc/self/fd").iterdir())
    # One is that of the listing itself, which is gone.
    return sorted(str(link) for link in links if link.is_symlink() and is_memory(link))


def is_memory(link: Path) -> bool:
    return "memfd:" in str(link.readlink())
