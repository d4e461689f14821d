"""What graphs over real processes show, and what handles, references and nodes are in a log."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import runtime
from collective import allreduce
from compiled_dag import InputNode, MultiOutputNode, Schedule
from tests.graphs import Keeper, Worker

PATIENCE_S = 60


@pytest.mark.proc
def test_a_graph_over_processes_is_readable_while_it_is_up_and_after_its_session(session) -> None:
    maker = runtime.remote(Keeper).remote()
    keeper = runtime.remote(Keeper).options(name="the keeper").remote()
    with InputNode() as inp:
        made = maker.make.bind(inp)
        output = MultiOutputNode([made, keeper.keep.bind(made)])
    graph = output.experimental_compile(_buffer_size_bytes=131_072, _max_inflight_executions=2)
    results = [runtime.get(graph.execute(number), timeout=PATIENCE_S) for number in range(2)]
    labels = [actor._runtime_process.label for actor in (maker, keeper)]

    memory = graph.memory()
    pins = [(pin.execution, pin.holder) for pin in memory.pins]
    assert sorted(pins) == sorted((n, holder) for n in range(2) for holder in ("driver", labels[1]))
    assert memory.used_bytes == memory.reserved_bytes == 2 * 131_072
    edges = {(e.source, e.target): (e.transport, e.channel.reserved_bytes)
             for e in graph.explain().edges}  # fmt: skip
    assert edges[1, 2] == ("shm", 2 * 131_072)

    text = graph.visualize(format="ascii")
    assert f"Actor: {labels[0]} Method: make" in text
    assert list(graph.schedule) == labels
    Schedule.parse(str(graph.schedule)).verify()

    before = graph.memory()
    runtime.shutdown()
    assert graph.memory() == before
    assert graph.visualize(format="ascii") == text
    assert graph.explain().edges[0].channel == before.channels[0]
    assert graph.options.max_inflight == 2
    assert len(graph.actors) == 2
    assert all((array == number).all() for number, (array, _) in enumerate(results))
    del results, graph, made, output, inp, maker, keeper
    gc.collect()


@pytest.mark.proc
def test_everything_users_hold_is_one_line_in_a_log(session) -> None:
    remote = runtime.remote(Worker)

    @runtime.remote
    def task(value):
        return value

    actor, other = remote.remote(1), remote.options(name="a name").remote(2)
    ref = actor.zeros.remote(100_000)
    with InputNode() as inp:
        field = inp["two\nlines"]
        sums = allreduce.bind([actor.grad.bind(field), other.grad.bind(field)])
        parts = actor.divide.options(num_returns=2).bind(inp["second"])
        output = MultiOutputNode([*sums, *parts])
    with output.experimental_compile() as graph:
        refs = graph.execute(**{"two\nlines": 1.0, "second": 15})
        held = [remote, actor, other, actor.add, ref, task, task.remote(1), runtime.put(1),
                inp, field, *sums, *parts, output, graph, *refs, graph.schedule,
                graph.options, runtime.get_runtime_context(), task.bind(inp)]  # fmt: skip
        for thing in held:
            assert "\n" not in repr(thing), repr(thing)
            assert len(repr(thing)) < 500, repr(thing)
        assert runtime.get(refs[2:], timeout=PATIENCE_S) == [1, 5]
        assert np.asarray(runtime.get(refs[0], timeout=PATIENCE_S)).shape == (3,)
