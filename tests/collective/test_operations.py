"""Every operation over actors on threads, with the real gloo. See `test_oracle` for numbers."""

from __future__ import annotations

import pytest
import torch

import collective
from collective import ReduceOp
from compiled_dag import (
    CollectiveMismatchError,
    CompiledDAGRef,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from tests.graphs import Worker

W = 3


class Rank:
    def __init__(self, rank) -> None:
        self.rank = rank

    def bring(self, question):
        return question(self.rank) if callable(question) else question[self.rank]

    def echo(self, value):
        return value


class Graph:
    """One operation over ranks that bring what a question says."""

    def __init__(self, host, draw, world_size=W) -> None:
        actors = [host.actor(Rank(rank)) for rank in range(world_size)]
        with InputNode() as inp:
            nodes = draw([actor.bring.bind(inp) for actor in actors])
            self.one = not isinstance(nodes, list)
            outputs = [nodes] if self.one else nodes
        self.graph = MultiOutputNode(outputs).experimental_compile()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.graph.teardown()

    def run(self, tensors) -> list:
        return CompiledDAGRef.get_many(self.graph.execute(tensors), 30)

    def errors(self, tensors) -> list[TaskError]:
        found = []
        for ref in self.graph.execute(tensors):
            with pytest.raises(TaskError) as raised:
                ref.get(30)
            found.append(raised.value)
        return found


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_any_number_of_ranks(host, world_size) -> None:
    tensors = [torch.arange(world_size * 2) + 100 * rank for rank in range(world_size)]
    last = world_size - 1
    draws = [
        (collective.allgather.bind, [torch.cat(tensors)] * world_size),
        (lambda n: collective.broadcast.bind(n, last), [tensors[last]] * world_size),
        (lambda n: collective.scatter.bind(n, last), list(tensors[last].chunk(world_size))),
        (lambda n: collective.reduce.bind(n, last), [sum(tensors)]),
        (collective.reducescatter.bind, list(sum(tensors).chunk(world_size))),
    ]
    for draw, expected in draws:
        with Graph(host, draw, world_size) as graph:
            for _ in range(3):
                for found, one in zip(graph.run(tensors), expected, strict=True):
                    assert torch.equal(found, one)


def test_inputs_are_left_as_they_are_and_may_have_any_strides(host) -> None:
    bases = [torch.arange(24.0).reshape(4, 6) + rank for rank in range(2)]
    strided = [base.T for base in bases]
    for draw in (
        collective.allgather.bind,
        collective.reducescatter.bind,
        collective.all_to_all.bind,
        collective.broadcast.bind,
    ):
        with Graph(host, draw, 2) as graph:
            graph.run(strided)
    assert all(torch.equal(b, torch.arange(24.0).reshape(4, 6) + n) for n, b in enumerate(bases))
    with Graph(host, collective.allgather.bind, 2) as graph:
        assert torch.equal(graph.run(strided)[0], torch.cat(strided))


def test_a_barrier_passes_any_value_once_all_are_there(host) -> None:
    with Graph(host, collective.barrier.bind) as graph:
        assert graph.run(["text", None, {"a": 1}]) == ["text", None, {"a": 1}]
        with pytest.raises(TaskError, match="no value"):
            graph.run(Failing(1))
        assert graph.run([1, 2, 3]) == [1, 2, 3]


class Failing:
    """A question that fails on one rank."""

    def __init__(self, rank) -> None:
        self.rank = rank

    def __call__(self, rank):
        if rank == self.rank:
            raise ValueError(f"no value on rank {rank}")
        return torch.zeros(3)


ALL = {
    "allreduce": collective.allreduce.bind,
    "allgather": collective.allgather.bind,
    "reducescatter": collective.reducescatter.bind,
    "broadcast": lambda nodes: collective.broadcast.bind(nodes, 1),
    "reduce": lambda nodes: collective.reduce.bind(nodes, 1),
    "gather": lambda nodes: collective.gather.bind(nodes, 1),
    "scatter": lambda nodes: collective.scatter.bind(nodes, 1),
    "all_to_all": collective.all_to_all.bind,
}


@pytest.mark.parametrize("name", ALL)
def test_an_error_on_any_rank_is_every_ranks_and_the_next_execution_works(host, name) -> None:
    with Graph(host, ALL[name]) as graph:
        for rank in range(W):
            for error in graph.errors(Failing(rank)):
                assert isinstance(error, ValueError)
                assert f"no value on rank {rank}" in str(error)
        graph.run([torch.ones(3)] * W)


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"broadcast", "scatter"}))
def test_ranks_that_bring_different_tensors_are_told_so(host, name) -> None:
    others = [torch.ones(6), torch.ones(3, dtype=torch.float64), "text"]
    with Graph(host, ALL[name]) as graph:
        for other in others:
            for error in graph.errors([torch.ones(3), other, torch.ones(3)]):
                if other == "text":
                    assert "takes a torch.Tensor, not builtins.str" in str(error)
                else:
                    assert isinstance(error, CollectiveMismatchError)
                    assert "rank  actor" in str(error)
                    assert str(error).count("<-- differs") == 1
        graph.run([torch.ones(3)] * W)


@pytest.mark.parametrize("name", ["broadcast", "scatter"])
def test_what_others_than_the_source_bring_does_not_matter(host, name) -> None:
    with Graph(host, ALL[name]) as graph:
        results = graph.run(["text", torch.arange(3), None])
        expected = [torch.arange(3)] * 3 if name == "broadcast" else torch.arange(3).chunk(3)
        assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))
        for error in graph.errors([torch.ones(3), "text", torch.ones(3)]):
            assert "takes a torch.Tensor, not builtins.str" in str(error)


@pytest.mark.parametrize("name", ["reducescatter", "scatter", "all_to_all"])
def test_what_cannot_be_divided_is_said_on_every_rank(host, name) -> None:
    with Graph(host, ALL[name]) as graph:
        for tensor, text in [
            (torch.ones(4), "the first dimension of shape (4,) cannot be divided among 3 ranks"),
            (torch.ones(()), "a tensor without dimensions"),
        ]:
            for error in graph.errors([tensor] * W):
                assert isinstance(error, CollectiveMismatchError)
                assert text in str(error)
        graph.run([torch.ones(3)] * W)


@pytest.mark.parametrize(
    ("op", "dtype", "text"),
    [
        ("BAND", torch.float32, "BAND of torch.float32 is not defined: only of integers"),
        ("AVG", torch.int32, "AVG of torch.int32 is not defined"),
        ("MAX", torch.complex64, "MAX of torch.complex64 is not defined: complex numbers"),
        ("SUM", torch.int16, "gloo cannot reduce torch.int16; shm can"),
    ],
)
def test_what_a_backend_cannot_reduce_is_said_before_it_is_touched(host, op, dtype, text) -> None:
    with Graph(host, lambda n: collective.reducescatter.bind(n, ReduceOp[op])) as graph:
        for error in graph.errors([torch.ones(3, dtype=dtype)] * W):
            assert isinstance(error, TypeError)
            assert text in str(error)
            assert f"reducescatter({op})" in str(error)


def test_several_operations_in_one_graph_and_ranks_that_get_nothing_go_on(host) -> None:
    actors = [host.actor(Rank(rank)) for rank in range(W)]
    with InputNode() as inp:
        brought = [actor.bring.bind(inp) for actor in actors]
        total = collective.reduce.bind(brought, 0)
        spread = collective.broadcast.bind([total, *brought[1:]], 0)
        joined = collective.gather.bind(spread, 2)
        output = MultiOutputNode([*spread, joined])
    with output.experimental_compile() as graph:
        for number in range(5):
            *three, last = CompiledDAGRef.get_many(
                graph.execute([torch.full((2,), number)] * W), 30
            )
            assert all(one.tolist() == [3 * number] * 2 for one in three)
            assert last.tolist() == [3 * number] * 6


# --- drawing ---


@pytest.fixture
def nodes(host):
    with InputNode() as inp:
        return [host.actor(Worker(number)).echo.bind(inp) for number in range(2)]


@pytest.mark.parametrize("root", [-1, 2, True, None, "0", 1.0])
@pytest.mark.parametrize("name", ["broadcast", "scatter", "reduce", "gather"])
def test_a_root_that_is_no_rank_is_refused(nodes, name, root) -> None:
    with pytest.raises(ValueError, match=r"_rank=.* is no rank of the 2 given"):
        getattr(collective, name).bind(nodes, root)


@pytest.mark.parametrize("name", [*ALL, "barrier"])
def test_inputs_that_are_no_nodes_of_different_actors_are_refused(nodes, name) -> None:
    operation = getattr(collective, name)
    with pytest.raises(GraphError, match="the list of inputs is empty"):
        operation.bind([])
    with pytest.raises(GraphError, match="takes a list with one node per actor"):
        operation.bind(nodes[0])
    with pytest.raises(GraphError, match=f"^{name}.*both on actor Worker"):
        operation.bind([nodes[0], nodes[0]])
    with pytest.raises(GraphError, match="is not a method of an actor"):
        operation.bind([nodes[0], 5])


def test_operations_say_what_they_are(nodes) -> None:
    assert repr(collective.all_to_all) == "collective.all_to_all"
    texts = {
        "reduce(dst_rank=1, MAX)": collective.reduce.bind(nodes, 1, ReduceOp.MAX),
        "scatter(src_rank=1)": collective.scatter.bind(nodes, 1)[0],
        "allgather": collective.allgather.bind(nodes)[0],
        "reducescatter(SUM)": collective.reducescatter.bind(nodes)[0],
    }
    for text, node in texts.items():
        assert text in repr(node)
