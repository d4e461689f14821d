"""``COMPILED_DAG_ENABLE_PROFILING``: three records per node and execution, on the object."""

from __future__ import annotations

import pytest

import runtime
from collective import allreduce
from compiled_dag import CompiledDAGRef, GraphError, InputNode, MultiOutputNode
from compiled_dag.trace.records import ATTRIBUTE, OPERATIONS
from tests.gates import Gate, compiled
from tests.graphs import Worker

get_many = CompiledDAGRef.get_many


@pytest.fixture
def profiling(monkeypatch):
    monkeypatch.setenv("COMPILED_DAG_ENABLE_PROFILING", "True")


def records_of(instance, *fields: str) -> list:
    return [
        tuple(getattr(record, field) for field in fields) for record in getattr(instance, ATTRIBUTE)
    ]


def test_every_node_has_three_records_in_every_execution(host, profiling) -> None:
    first, second = host.actor(one := Worker(1)), host.actor(two := Worker(2))
    with InputNode() as inp:
        made = first.add.bind(inp)
        output = MultiOutputNode([second.join.bind(made, inp), first.echo.bind(made)])
    with output.experimental_compile() as graph:
        for number in range(3):
            assert get_many(graph.execute(number), 30) == [(number + 1, number), number + 1]
    of_node = [[(name, index, operation) for operation in OPERATIONS] for name, index in
               [("add", 0), ("echo", 1)]]  # fmt: skip
    fields = "method_name", "bind_index", "operation"
    assert records_of(one, *fields) == [*of_node[0], *of_node[1]] * 3
    assert records_of(two, *fields) == [("join", 0, operation) for operation in OPERATIONS] * 3


def test_records_are_in_order_and_say_who(host, profiling) -> None:
    with compiled(host, worker := Worker(1)) as graph:
        graph.execute(1).get(30)
        graph.execute(2).get(30)
    records = getattr(worker, ATTRIBUTE)
    assert records[0].to_dict().keys() == {
        "actor_classname", "actor_name", "actor_id", "method_name", "bind_index", "operation",
        "start_t", "end_t",
    }  # fmt: skip
    assert {(record.actor_classname, record.actor_id) for record in records} == {("Worker", "1")}
    times = [time for record in records for time in (record.start_t, record.end_t)]
    assert times == sorted(times)


def test_bind_indexes_follow_the_order_of_binds_and_several_returns_are_one_node(
    host, profiling
) -> None:
    actor = host.actor(worker := Worker(1))
    with InputNode() as inp:
        later = actor.divide.options(num_returns=2)
        echoed = actor.echo.bind(inp)
        quotient, rest = later.bind(echoed)
        output = MultiOutputNode([quotient, rest])
    with output.experimental_compile() as graph:
        assert get_many(graph.execute(57), 30) == [5, 7]
    assert records_of(worker, "method_name", "bind_index", "operation") == [
        (name, index, operation)
        for name, index in (("echo", 0), ("divide", 1))
        for operation in OPERATIONS
    ]


def test_a_method_that_raises_is_recorded_as_well(host, profiling) -> None:
    with compiled(host, gate := Gate(), "fail") as graph, pytest.raises(ValueError, match="is bad"):
        graph.execute(1).get(30)
    assert records_of(gate, "operation") == [(operation,) for operation in OPERATIONS]


class Slotted:
    __slots__ = ("number",)

    def echo(self, value):
        return value


def test_an_object_without_room_for_records_is_refused(host, profiling) -> None:
    with pytest.raises(GraphError, match=f"Slotted takes no attribute {ATTRIBUTE}"):
        compiled(host, Slotted())


@pytest.mark.parametrize("text", [None, "0", "no"])
def test_nothing_is_recorded_unless_asked_for(host, monkeypatch, text) -> None:
    if text is not None:
        monkeypatch.setenv("COMPILED_DAG_ENABLE_PROFILING", text)
    with compiled(host, worker := Worker(1)) as graph:
        graph.execute(1).get(30)
    assert not hasattr(worker, ATTRIBUTE)


@runtime.remote
class Rank:
    def grad(self, value):
        import torch

        return torch.full((2,), float(value))

    def own_id(self):
        return runtime.get_runtime_context().get_actor_id()

    def total(self, gradient):
        return float(gradient.sum())


@pytest.mark.proc
def test_records_of_actors_are_read_by_an_ordinary_call(session, profiling) -> None:
    ranks = [Rank.options(name="first").remote(), Rank.remote()]
    with InputNode() as inp:
        reduced = allreduce.bind([rank.grad.bind(inp) for rank in ranks])
        output = MultiOutputNode(
            [rank.total.bind(part) for rank, part in zip(ranks, reduced, strict=True)]
        )
    with output.experimental_compile() as graph:
        for number in range(2):
            assert runtime.get(graph.execute(number)) == [4.0 * number] * 2
    for rank, name in zip(ranks, ("first", ""), strict=True):
        records = runtime.get(rank.__ray_call__.remote(lambda self: getattr(self, ATTRIBUTE)))
        assert [record.operation for record in records] == [*OPERATIONS] * 3 * 2
        nodes = [(record.method_name, record.bind_index) for record in records[::3]]
        assert nodes == [("grad", 0), ("allreduce(SUM)", 1), ("total", 2)] * 2
        assert {(r.actor_classname, r.actor_name) for r in records} == {("Rank", name)}
        assert {record.actor_id for record in records} == {runtime.get(rank.own_id.remote())}
