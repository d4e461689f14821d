"""Several tensors in one operation. See `test_oracle` for numbers."""

from __future__ import annotations

import pickle
from itertools import chain

import pytest
import torch

import collective
from collective import ReduceOp, allreduce
from compiled_dag import (
    CollectiveMismatchError,
    CompiledDAGRef,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from compiled_dag.schedule import Schedule
from tests.communicators import Threads
from tests.graphs import paper
from tests.live import wait_until
from tests.remotes import FakeClass


class Rank:
    """An actor that brings what a question says, by rank and bucket."""

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank

    def bring(self, question, bucket):
        value = question[self.rank][bucket]
        if isinstance(value, Exception):
            raise value
        return value

    def echo(self, value):
        return value

    def sizes(self, *values):
        return [tuple(value.shape) for value in values]


def lists(actors, inp, count):
    return [[actor.bring.bind(inp, bucket) for actor in actors] for bucket in range(count)]


def results_of(graph, question):
    return CompiledDAGRef.get_many(graph.execute(question), 30)


def errors_of(graph, question) -> list[TaskError]:
    errors = []
    for ref in graph.execute(question):
        with pytest.raises(TaskError) as raised:
            ref.get(30)
        errors.append(raised.value)
    return errors


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["allreduce", "allgather", "reducescatter", "all_to_all"])
def test_each_actor_gets_a_list_with_a_node_for_each_inner_list(name) -> None:
    actors = paper(2)
    with InputNode() as inp:
        found = getattr(collective, name).bind(lists(actors, inp, 3))
        one = getattr(collective, name).bind(lists(actors, inp, 1))
    assert [len(nodes) for nodes in found] == [3, 3]
    assert [type(node).__name__ for node in one] == ["CollectiveOutputNode"] * 2
    assert "3 buckets), rank 1[2]" in found[1][2]._label.replace("SUM, ", "(").replace("((", "(")


@pytest.mark.parametrize("name", ["broadcast", "scatter"])
def test_what_comes_from_one_rank_is_a_list_for_each_actor_too(name) -> None:
    with InputNode() as inp:
        found = getattr(collective, name).bind(lists(paper(3), inp, 2), src_rank=1)
    assert [len(nodes) for nodes in found] == [2, 2, 2]


@pytest.mark.parametrize("name", ["reduce", "gather"])
def test_what_goes_to_one_rank_is_one_list(name) -> None:
    with InputNode() as inp:
        found = getattr(collective, name).bind(lists(paper(3), inp, 2), dst_rank=1)
        one = getattr(collective, name).bind(lists(paper(3), inp, 1), dst_rank=1)
    assert len(found) == 2
    assert f"{name}(" in one._label
    assert "rank 1" in one._label


def test_a_barrier_of_lists_is_refused() -> None:
    with InputNode() as inp, pytest.raises(GraphError, match=r"barrier\.bind takes one list"):
        collective.barrier.bind(lists(paper(2), inp, 1))


def test_lists_of_other_actors_are_refused_by_index_and_actors() -> None:
    first, second, third = paper(3)
    with InputNode() as inp:
        ones, twos, threes = ([a.echo.bind(inp) for _ in range(4)] for a in (first, second, third))
        good = [ones[0], twos[0]]
        for bad, text in [
            ([twos[1], ones[1]], r"list 0 is of Worker\(1\), Worker\(2\), list 1 of Worker\(2\)"),
            ([ones[1], threes[1]], r"list 1 of Worker\(1\), Worker\(3\)\. All lists take the same"),
            ([ones[1]], r"list 1 of Worker\(1\)\. All lists"),
            ([], r"list 1 of the inputs is empty"),
            ([ones[1], ones[2]], r"inputs 0 and 1 of list 1 are both on actor Worker\(1\)"),
            ([ones[1], 5], r"input 1 of list 1 \(5\) is not a method of an actor"),
        ]:
            with pytest.raises(GraphError, match=text):
                allreduce.bind([good, bad])
        with pytest.raises(GraphError, match=r"input 1 .* is no list, and input 0 is one"):
            allreduce.bind([good, ones[1]])


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1 MiB"])
def test_a_bucket_has_at_least_a_byte(value) -> None:
    with InputNode() as inp, pytest.raises(ValueError, match=r"bucket_bytes=.* at least 1"):
        allreduce.bind(lists(paper(2), inp, 2), bucket_bytes=value)


def test_options_that_an_operation_has_not_are_refused_by_name() -> None:
    with InputNode() as inp:
        nodes = [actor.echo.bind(inp) for actor in paper(2)]
        with pytest.raises(GraphError, match=r"allreduce: bucket_bytes=8 divides the tensors of"):
            allreduce.bind(nodes, bucket_bytes=8)
        for name in ("allgather", "reducescatter", "gather", "scatter", "all_to_all"):
            with pytest.raises(GraphError, match=f"{name}: inplace=True is of allreduce, reduce"):
                getattr(collective, name).bind(nodes, inplace=True)
        for name in ("allreduce", "reducescatter", "reduce", "broadcast"):
            with pytest.raises(GraphError, match=f"{name}: uneven=True is of allgather, gather"):
                getattr(collective, name).bind(nodes, uneven=True)
        with pytest.raises(ValueError, match=r"inplace='yes' is neither True nor False"):
            allreduce.bind(nodes, inplace="yes")
        with pytest.raises(TypeError, match="unexpected keyword argument 'in_place'"):
            allreduce.bind(nodes, in_place=True)


# --- running --------------------------------------------------------------------------------------


@pytest.fixture
def pair(host):
    """Compiles an allreduce of several buckets on two actors."""
    graphs = []

    def make(count: int, draw=allreduce.bind, **options):
        actors = [host.actor(Rank(rank)) for rank in range(2)]
        with InputNode() as inp:
            found = draw(lists(actors, inp, count), **options)
            graphs.append(MultiOutputNode([*chain(*found)]).experimental_compile())
        return graphs[-1]

    yield make
    while graphs:  # pytest keeps the fixture's value until the leaks were counted
        graphs.pop().teardown()


@pytest.mark.parametrize(
    ("bucket_bytes", "messages"),
    [(None, [35]), (1000, [35]), (80, [12, 20, 3]), (1, [5, 7, 20, 3])],
)
def test_all_tensors_travel_in_one_message_or_in_as_many_as_is_said(
    host, monkeypatch, bucket_bytes, messages
) -> None:
    sent: list[int] = []

    def counted(self, send_buf, recv_buf, op, allreduce=Threads.allreduce):
        if self._rank == 0:
            sent.append(send_buf.numel())
        allreduce(self, send_buf, recv_buf, op)

    monkeypatch.setattr(Threads, "allreduce", counted)
    actors = [host.actor(Rank(rank)) for rank in range(2)]
    shapes = [(5,), (7, 1), (2, 10), (3,)]
    question = [[torch.full(shape, rank + 1.0) for shape in shapes] for rank in range(2)]
    with InputNode() as inp:
        found = allreduce.bind(
            lists(actors, inp, 4), transport=Threads(actors), bucket_bytes=bucket_bytes
        )
        output = MultiOutputNode([a.sizes.bind(*n) for a, n in zip(actors, found, strict=True)])
    with output.experimental_compile() as graph:
        assert results_of(graph, question) == [shapes] * 2
    assert sent == messages


def test_an_output_that_nobody_reads_is_refused_by_bucket_and_rank(host) -> None:
    actors = [host.actor(Rank(rank)) for rank in range(2)]
    with InputNode() as inp:
        found = allreduce.bind([[actor.echo.bind(inp[n]) for actor in actors] for n in range(2)])
        output = MultiOutputNode([*found[0], actors[1].echo.bind(found[1][1])])
    unread = (
        r"result of element 0 of allreduce\(SUM, 2 buckets\), rank 1 \(node \d+, bound at [^)]*\)"
    )
    with pytest.raises(GraphError, match=unread + r"\. Add it to the MultiOutputNode"):
        output.experimental_compile()


def test_outputs_travel_and_take_hints(pair, host) -> None:
    actors = [host.actor(Rank(rank)) for rank in range(2)]
    with InputNode() as inp:
        (left, right), others = allreduce.bind(lists(actors, inp, 2))
        left.with_tensor_transport("shm")
        output = actors[1].sizes.bind(left, right, *others)
    with output.experimental_compile() as graph:
        ones = [torch.ones(2), torch.ones(3)]
        assert graph.execute([ones, ones]).get(30) == [(2,), (3,)] * 2
        assert "allreduce(SUM, 2 buckets)" in str(graph.explain())
        assert graph.schedule == Schedule.parse(str(graph.schedule))
        graph.schedule.verify()
        assert pickle.loads(pickle.dumps(graph.schedule)) == graph.schedule
        start = "allreduce(SUM, 2 buckets) start"  # noted once the actor is done, after the result
        wait_until(lambda: start in {event["name"] for event in graph.trace()})


def test_the_tensors_of_a_rank_have_one_dtype(pair) -> None:
    graph = pair(3)
    mixed = [torch.ones(2), torch.ones(2), torch.ones(2, dtype=torch.int32)]
    text = "must have one dtype: there is torch.float32 in buckets 0, 1; torch.int32 in bucket 2"
    for error in errors_of(graph, [mixed, mixed]):
        assert isinstance(error, ValueError)
        assert text in str(error)
        assert error.node.startswith("allreduce(SUM, 3 buckets), rank 0 (node")
    ones = [torch.ones(2)] * 3
    assert len(results_of(graph, [ones, ones])) == 6


def test_ranks_that_bring_other_shapes_are_told_the_buckets(pair) -> None:
    graph = pair(3)
    ones = [torch.ones(2), torch.ones(3), torch.ones(4)]
    other = [torch.ones(2), torch.ones(5), torch.ones(4)]
    for error in errors_of(graph, [ones, other]):
        assert isinstance(error, CollectiveMismatchError)
        assert "bucket 1: (3,)" in str(error)
        assert "bucket 1: (5,)" in str(error)
        assert "bucket 0" not in str(error)
    assert len(results_of(graph, [ones, ones])) == 6


def test_what_is_no_tensor_is_told_by_its_bucket(pair) -> None:
    graph = pair(2)
    for error in errors_of(graph, [[torch.ones(2), "text"], [torch.ones(2)] * 2]):
        assert "allreduce(SUM, 2 buckets), bucket 1 takes a torch.Tensor, not" in str(error)


def test_an_error_in_one_bucket_is_that_of_all_outputs(pair) -> None:
    graph = pair(3, bucket_bytes=8)
    ones = [torch.ones(2)] * 3
    bad = [torch.ones(2), KeyError("gradient"), torch.ones(2)]
    for _ in range(2):
        for error in errors_of(graph, [ones, bad]):
            assert isinstance(error, KeyError)
            assert error.rank == 1
        assert [one.tolist() for one in results_of(graph, [ones, ones])] == [[2, 2]] * 6


def test_hundreds_of_tensors_are_compared_although_their_shapes_do_not_fit(pair) -> None:
    count = 120
    graph = pair(count)
    wide = [torch.ones([1] * 14 + [2, n % 3]) for n in range(count)]
    other = [*wide[:-1], torch.ones(7)]
    assert len(results_of(graph, [wide, wide])) == 2 * count
    for error in errors_of(graph, [wide, other]):
        assert isinstance(error, CollectiveMismatchError)
        assert f"bucket {count - 1}: (7,)" in str(error)


# --- actors in place of nodes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["broadcast", "scatter"])
def test_an_actor_may_stand_for_a_node_of_a_rank_that_only_gets(host, name) -> None:
    first, source, third = actors = [host.actor(Rank(rank)) for rank in range(3)]
    with InputNode() as inp:
        order = first.echo.bind(inp)
        values = [source.bring.bind(inp, bucket) for bucket in range(2)]
        bind = getattr(collective, name).bind
        found = bind([[order, values[0], third], [first, values[1], third]], src_rank=1)
        flat = bind([first, values[0], third], src_rank=1)
        output = MultiOutputNode([*chain(*found), *flat])
    with output.experimental_compile() as graph:
        question = [[], [torch.arange(3), torch.arange(6)], []]
        results = results_of(graph, question)
    whole = [torch.arange(3), torch.arange(6)]
    for rank in range(3):
        expected = whole if name == "broadcast" else [one.chunk(3)[rank] for one in whole]
        assert all(map(torch.equal, results[2 * rank : 2 * rank + 2], expected))
        assert torch.equal(results[6 + rank], expected[0])
    del actors


def test_the_actor_may_be_one_that_the_graph_makes(host) -> None:
    source = host.actor(Rank(0))
    made = FakeClass(host, Rank).bind(1)
    with InputNode() as inp:
        left, right = collective.broadcast.bind([source.bring.bind(inp, 0), made])
        output = MultiOutputNode([left, made.echo.bind(right)])
    with output.experimental_compile() as graph:
        for one in graph.execute([[torch.ones(2)]]):
            assert one.get(30).tolist() == [1, 1]


def test_an_actor_that_brings_something_is_refused() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        node = first.echo.bind(inp)
        with pytest.raises(GraphError, match=r"input 1 .* is not a method of an actor\."):
            allreduce.bind([node, second])
        with pytest.raises(GraphError, match=r"is not a method of an actor\."):
            collective.broadcast.bind([first, second])
        with pytest.raises(GraphError, match="is not a method of an actor, nor an actor"):
            collective.broadcast.bind([node, object()])
        with pytest.raises(GraphError, match="is not a method of an actor, nor an actor"):
            collective.broadcast.bind([node, inp])
        with pytest.raises(GraphError, match="are both on actor"):
            collective.broadcast.bind([node, first])
        with pytest.raises(GraphError, match=r"is not a method of an actor\."):
            collective.broadcast.bind([node, second], inplace=True)


def test_the_operation_says_what_it_is() -> None:
    with InputNode() as inp:
        nodes = lists(paper(2), inp, 2)
        node = collective.reduce.bind(nodes, 1, ReduceOp.MAX, inplace=True)[0]
        assert node._label == "reduce(dst_rank=1, MAX, 2 buckets, inplace), rank 1[0]"
        node = collective.allgather.bind(nodes, uneven=True)[0][1]
        assert node._label == "allgather(2 buckets, uneven), rank 0[1]"
