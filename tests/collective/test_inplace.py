"""Results where the inputs are, and first dimensions that differ. See `test_oracle` for numbers."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

import collective
from collective import ReduceOp, allreduce, barrier, broadcast
from compiled_dag import (
    CollectiveMismatchError,
    CompiledDAGRef,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from tests.graphs import paper, program_of


class Rank:
    """An actor that keeps what it brings."""

    def __init__(self, make) -> None:
        self.make = make
        self.kept: list = []

    def bring(self, question):
        self.kept.append(self.make(question))
        return self.kept[-1]

    def is_kept(self, *values):
        last = self.kept[-len(values) :]
        return [a.data_ptr() == b.data_ptr() for a, b in zip(last, values, strict=True)]


def graph_of(host, *makes, draw=allreduce.bind, **options):
    actors = [host.actor(Rank(make)) for make in makes]
    with InputNode() as inp:
        found = draw([actor.bring.bind(inp) for actor in actors], inplace=True, **options)
        checks = [a.is_kept.bind(node) for a, node in zip(actors, found, strict=True)]
        graph = MultiOutputNode([*checks, *found]).experimental_compile()
    return actors, graph


def run(graph, question=None):
    return CompiledDAGRef.get_many(graph.execute(question), 30)


def errors_of(graph, question=None) -> list[str]:
    found = []
    for ref in graph.execute(question):
        with pytest.raises(TaskError) as raised:
            ref.get(30)
        found.append(raised.value)
    return found


VIEWS = {
    "contiguous": lambda rank: torch.full((2, 3), rank + 1.0),
    "strided": lambda rank: torch.full((2, 6), rank + 1.0)[:, ::2],
    "transposed": lambda rank: torch.full((3, 2), rank + 1.0).T,
    "parameter": lambda rank: torch.nn.Parameter(torch.full((2, 3), rank + 1.0)),
    "0-dim": lambda rank: torch.tensor(rank + 1.0),
    "empty": lambda rank: torch.ones(0, 3),
}


@pytest.mark.parametrize("name", VIEWS)
def test_the_result_is_where_the_input_was(host, name) -> None:
    makes = [lambda _, rank=rank: VIEWS[name](rank) for rank in range(2)]
    for op, factor in ((ReduceOp.SUM, 3), (ReduceOp.AVG, 1.5)):
        actors, graph = graph_of(host, *makes, op=op)
        with graph:
            for _ in range(2):
                *same, left, right = run(graph)
                assert same == [[True], [True]]
                expected = factor * torch.ones_like(VIEWS[name](0))
                assert torch.equal(left, expected)
                assert torch.equal(right, expected)
                kept = [actor.instance.kept[-1] for actor in actors]
                assert all(torch.equal(one, expected) for one in kept)


def test_several_tensors_are_copied_back(host) -> None:
    actors = [host.actor(Rank(lambda n: torch.full((n,), 2.0))) for _ in range(2)]
    with InputNode() as inp:
        nodes = [[a.bring.bind(inp) for a in actors] for _ in range(3)]
        found = allreduce.bind(nodes, inplace=True, bucket_bytes=16)
        output = MultiOutputNode([a.is_kept.bind(*n) for a, n in zip(actors, found, strict=True)])
    with output.experimental_compile() as graph:
        assert run(graph, 3) == [[True] * 3] * 2


def test_a_broadcast_writes_into_what_each_rank_brings(host) -> None:
    makes = [lambda n, rank=rank: torch.full((n + rank,), float(rank)) for rank in range(2)]
    same = [makes[0], lambda n: torch.full((n,), 9.0)]
    _, graph = graph_of(host, *same, draw=broadcast.bind, src_rank=1)
    with graph:
        *kept, left, right = run(graph, 3)
        assert kept == [[True], [True]]
        assert left.tolist() == right.tolist() == [9.0] * 3
    _, graph = graph_of(host, *makes, draw=broadcast.bind)
    with graph:
        assert all(isinstance(one, CollectiveMismatchError) for one in errors_of(graph, 3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda _: torch.ones(1, 3).expand(4, 3), "cannot overwrite a tensor whose elements share"),
        (lambda _: inference(), "cannot overwrite a tensor made in torch.inference_mode"),
    ],
)
def test_what_cannot_be_overwritten_is_refused_on_all_ranks(host, make, text) -> None:
    _, graph = graph_of(host, make, lambda _: torch.ones(4, 3))
    with graph:
        for error in errors_of(graph):
            assert isinstance(error, ValueError)
            assert text in str(error)


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(4, 3)


# --- who else reads it ----------------------------------------------------------------------------


OTHERS = {
    "a node": lambda first, _, ours: ([ours], [first.add.bind(ours[0])]),
    "an actor": lambda _, second, ours: ([ours], [second.add.bind(ours[0])]),
    "the driver": lambda _, __, ours: ([ours], [ours[0]]),
    "a node, before a barrier": lambda first, _, ours: (
        [barrier.bind(ours)],
        [first.add.bind(ours[0])],
    ),
    "a barrier's reader": lambda _, __, ours: ([ours], barrier.bind(ours)),
    "a collective": lambda _, __, ours: ([ours], allreduce.bind(ours)),
    "itself": lambda _, __, ours: ([ours, ours], []),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_others_read_is_not_overwritten(name) -> None:
    first, second = paper(2)
    with InputNode() as inp:
        ours = [first.echo.bind(inp), second.echo.bind(inp)]
        inputs, more = OTHERS[name](first, second, ours)
        found = allreduce.bind(inputs, inplace=True)
        flat = [*chain(*found)] if isinstance(found[0], list) else found
        output = MultiOutputNode([*flat, *more])
    with pytest.raises(
        GraphError, match=r"overwrites its input \(inplace=True\), which others read"
    ):
        program_of(output)


def test_what_nobody_else_reads_may_go_through_several(host) -> None:
    actors, makes = [], [lambda n: torch.full((n,), 1.0)] * 2
    actors = [host.actor(Rank(make)) for make in makes]
    with InputNode() as inp:
        nodes = [actor.bring.bind(inp) for actor in actors]
        nodes = allreduce.bind(barrier.bind(nodes), inplace=True)
        nodes = allreduce.bind(nodes, inplace=True, op=ReduceOp.MAX)
        output = MultiOutputNode([a.is_kept.bind(n) for a, n in zip(actors, nodes, strict=True)])
    with output.experimental_compile() as graph:
        assert run(graph, 2) == [[True], [True]]


# --- uneven ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["allgather", "gather", "all_to_all"])
def test_only_first_dimensions_may_differ(host, name) -> None:
    makes = [lambda q, rank=rank: q[rank] for rank in range(2)]
    actors = [host.actor(Rank(make)) for make in makes]
    with InputNode() as inp:
        found = getattr(collective, name).bind(
            [actor.bring.bind(inp) for actor in actors], uneven=True
        )
        output = MultiOutputNode(found if isinstance(found, list) else [found])
    with output.experimental_compile() as graph:
        for other in (torch.ones(2, 4), torch.ones(2), torch.ones(2, 3, dtype=torch.float64)):
            for error in errors_of(graph, [torch.ones(5, 3), other]):
                assert isinstance(error, CollectiveMismatchError)
                assert str(error).count("<-- differs") == 1
        for error in errors_of(graph, [torch.ones(5, 3), torch.tensor(1.0)]):
            assert "a tensor without dimensions" in str(error)
        sizes = [tuple(one.shape) for one in run(graph, [torch.ones(5, 3), torch.ones(2, 3)])]
        assert (
            sizes
            == {
                "allgather": [(7, 3), (7, 3)],
                "gather": [(7, 3)],
                "all_to_all": [(4, 3), (3, 3)],
            }[name]
        )


def test_what_is_not_divided_evenly_gives_the_first_ranks_more(host) -> None:
    actors = [host.actor(Rank(lambda q: q)) for _ in range(3)]
    with InputNode() as inp:
        found = collective.scatter.bind([actors[0].bring.bind(inp), *actors[1:]], uneven=True)
        output = MultiOutputNode(found)
    with output.experimental_compile() as graph:
        assert [one.tolist() for one in run(graph, torch.arange(5))] == [[0, 1], [2, 3], [4]]
        assert [one.tolist() for one in run(graph, torch.arange(1))] == [[0], [], []]


def test_all_shapes_must_fit_where_ranks_learn_them(host) -> None:
    wide = torch.ones([1] * 15 + [2])
    actors = [host.actor(Rank(lambda _: wide)) for _ in range(2)]
    with InputNode() as inp:
        nodes = [[actors[0].bring.bind(inp), actors[1]] for _ in range(600)]
        output = MultiOutputNode([*chain(*broadcast.bind(nodes))])
    with output.experimental_compile() as graph:
        for error in errors_of(graph):
            assert "the shapes of 600 tensors take 19199 bytes" in str(error)
