from __future__ import annotations

import pickle

from compiled_dag import Explanation, InputNode, MultiOutputNode
from compiled_dag.explain import Collective
from tests.graphs import Keeper, Worker, data_parallel, nested
from tests.remotes import FakeFunction


def test_every_edge_has_its_transport_and_why(host) -> None:
    actors = [host.actor(Worker(number)) for number in (1, 2)]
    with nested(actors).experimental_compile() as graph:
        explanation = graph.explain()
    assert [(e.source, e.target, e.transport) for e in explanation.edges] == [
        (1, 3, "shm"),
        (2, 4, "shm"),
        (6, 5, "shm"),
        (7, 5, "shm"),
        (2, 5, "local"),
        (3, 6, "shm"),
        (4, 6, "local"),
    ]
    whys = {(e.source, e.target): e.why for e in explanation.edges}
    assert whys[1, 3] == "driver and Worker(1) are processes of one machine"
    assert whys[4, 6] == "both are on Worker(2): the object itself is handed on"
    assert whys[2, 5] == "the driver has it: a copy is handed back"
    assert explanation.collectives == ()


def test_an_edge_tells_its_slots_and_bytes(host) -> None:
    maker, keeper = host.actor(Keeper()), host.actor(Keeper())
    with InputNode() as inp:
        output = keeper.echo.bind(maker.make.bind(inp))
    with output.experimental_compile(
        _buffer_size_bytes=131_072, _max_inflight_executions=2
    ) as graph:
        graph.execute(1).get(30)
        (edge,) = [one for one in graph.explain().edges if one.source == 1]
        assert edge.channel == graph.memory().channels[edge.channel.channel]
        assert (edge.channel.slot_bytes, edge.channel.slots) == (131_072, 3)
        assert edge.channel.reserved_bytes == 131_072
        assert str(edge) == (
            "1 Keeper.make -> 2 Keeper.echo: shm, since Keeper(1) and Keeper(2) are processes of "
            "one machine\n    channel 1: 2 slots for values up to 4032 bytes, 3 of 131072 bytes, "
            "131072 bytes reserved"
        )


def test_a_collective_has_its_backend_and_why(host) -> None:
    actors = [host.actor(Worker(number)) for number in (1, 2)]
    with data_parallel(actors).experimental_compile() as graph:
        explanation = graph.explain()
    assert explanation.collectives == (
        Collective(
            name="allreduce(AVG)",
            nodes=(3, 4),
            actors=("Worker(1)", "Worker(2)"),
            backend="gloo",
            why="Worker(1) has no GPU",
            advice="transport='shm' would be faster: their tensors are in one machine's memory",
        ),
    )
    lines = str(explanation).splitlines()
    assert lines[0] == "Edges:"
    assert lines[-3] == "Collectives:"
    assert lines[-2:] == [
        "  allreduce(AVG) (nodes 3 on Worker(1), 4 on Worker(2)): gloo, since Worker(1) has no GPU",
        "      transport='shm' would be faster: their tensors are in one machine's memory",
    ]
    assert isinstance(explanation, Explanation)
    assert pickle.loads(pickle.dumps(explanation)) == explanation


def add(left, right):
    return left + right


def test_calls_of_functions_are_told_by_their_workers(host) -> None:
    remote, actor = FakeFunction(host, add), host.actor(Worker(1))
    with InputNode() as inp:
        first, other = remote.bind(inp, 1), remote.bind(inp, 2)
        both = remote.bind(first, other)
        output = MultiOutputNode([both, actor.add.bind(first)])
    with output.experimental_compile() as graph:
        explanation = graph.explain()
        assert graph.execute(1)[0].get(30) == 5
    named = {worker.name: worker.calls for worker in explanation.workers}
    assert sorted(node for calls in named.values() for node, _ in calls) == [1, 2, 3]
    assert {name for calls in named.values() for _, name in calls} == {"add"}
    assert len(named) == 2  # the two that can run at once; the third waits for both
    report = str(explanation).split("Workers for functions:\n")[1]
    assert report.splitlines() == [f"  {worker}" for worker in explanation.workers]
    assert all(name in graph.visualize(format="ascii") for name in named)
