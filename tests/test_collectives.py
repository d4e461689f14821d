"""Forms of collectives between processes: several tensors, in place, uneven; deaths; two graphs."""

from __future__ import annotations

import os
import signal
from itertools import chain

import pytest
import torch

import runtime
from collective import all_to_all, allgather, allreduce, broadcast, reducescatter
from compiled_dag import InputNode, MultiOutputNode
from tests.crew import Order, Rank, obey
from tests.gates import Background
from tests.live import LONG_S, died, make_ranks, pids_of, reduce, wait_until, where

pytestmark = pytest.mark.proc


@runtime.remote
class Part:
    """A rank with tensors of its own."""

    def __init__(self, rank):
        self.rank = rank
        self.kept = None

    def bring(self, rows, columns):
        self.kept = torch.full((rows + self.rank, columns), self.rank + 1.0)
        return self.kept

    def is_kept(self, value):
        return value.data_ptr() == self.kept.data_ptr()

    def look(self, *values):
        return [(tuple(value.shape), float(value.sum())) for value in values]


def test_every_form_between_processes_with_actors_that_the_graph_makes(session):
    first, made = Part.remote(0), Part.bind(1)
    with InputNode() as inp:
        uneven = [[actor.bring.bind(inp, n) for actor in (first, made)] for n in (1, 2)]
        joined = allgather.bind(uneven, uneven=True, bucket_bytes=16)
        swapped = all_to_all.bind([first.bring.bind(inp, 1), made.bring.bind(inp, 1)], uneven=True)
        spread = broadcast.bind([first.bring.bind(inp, 3), made])
        sums = allreduce.bind(spread, inplace=True)
        output = MultiOutputNode(
            [
                first.look.bind(*joined[0], swapped[0], sums[0]),
                made.look.bind(*joined[1], swapped[1], sums[1]),
            ]
        )
    with output.experimental_compile() as graph:
        for rows in (2, 3, 2):
            ours, theirs = runtime.get(graph.execute(rows), timeout=LONG_S)
            total = 2 * rows + 1
            assert ours[:2] == theirs[:2]
            assert [shape for shape, _ in ours[:2]] == [(total, 1), (total, 2)]
            assert [one for _, one in ours[:2]] == [rows + 2 * (rows + 1), 2 * (3 * rows + 2)]
            assert ours[2][0][0] + theirs[2][0][0] == total
            assert ours[3] == theirs[3] == ((rows, 3), 6.0 * rows)


def test_a_result_is_where_the_input_was_in_the_actors_memory(session):
    parts = [Part.remote(0), Part.remote(0)]
    with InputNode() as inp:
        sums = allreduce.bind([part.bring.bind(inp, 4) for part in parts], inplace=True)
        same = [part.is_kept.bind(one) for part, one in zip(parts, sums, strict=True)]
        output = MultiOutputNode([*same, *sums])
    with output.experimental_compile() as graph:
        left, right, *values = runtime.get(graph.execute(3), timeout=LONG_S)
        assert (left, right) == (True, True)
        assert all(torch.equal(value, torch.full((3, 4), 2.0)) for value in values)


def draw_broadcast(crew):
    """Draw a broadcast of rank 0's numbers; it is large, so that it takes a while."""
    with InputNode() as inp:
        source = crew[0].grad.bind(inp, 4_000_000)
        found = broadcast.bind([source, *crew[1:]])
        totals = [rank.total.bind(one) for rank, one in zip(crew, found, strict=True)]
        return MultiOutputNode(totals).experimental_compile()


def draw_buckets(crew):
    """Draw an allreduce of two messages: a death in the first comes before the second."""
    with InputNode() as inp:
        nodes = [[rank.grad.bind(inp, size) for rank in crew] for size in (100_000, 5)]
        found = allreduce.bind(nodes, bucket_bytes=64)
        return MultiOutputNode([*chain(*found)]).experimental_compile()


def draw_divided(operation):
    """Return how to draw an operation whose results are parts, or all parts joined."""

    def draw(crew):
        with InputNode() as inp:
            found = operation.bind([rank.grad.bind(inp, 4_000_000) for rank in crew])
            return MultiOutputNode(found).experimental_compile()

    return draw


DRAWN = {
    "broadcast": draw_broadcast,
    "buckets": draw_buckets,
    "allgather": draw_divided(allgather),
    "reducescatter": draw_divided(reducescatter),
}


@pytest.mark.parametrize("drawn", DRAWN)
def test_a_death_in_an_operation_of_four_is_told_on_all_ranks(session, drawn):
    draw, crew = DRAWN[drawn], make_ranks(4)
    for victim in (1, 3):
        with draw(crew) as graph:
            runtime.get(graph.execute(0), timeout=LONG_S)
            runtime.get(crew[victim - 1].die_in_gloo.remote(), timeout=LONG_S)
            errors = [died(ref) for ref in (*graph.execute(0), *graph.execute(1))]
            assert {str(error) for error in errors} == {str(errors[0])}
            assert graph.actors[victim - 1].label in str(errors[0])
        crew[victim - 1] = Rank.remote(victim)
        assert len(pids_of(crew)) == 4
    with draw(crew) as graph:
        runtime.get(graph.execute(0), timeout=LONG_S)


@pytest.mark.parametrize(("transport", "meeting"), [("gloo", 1), ("shm", 5)])
def test_a_rank_that_dies_between_two_meetings_has_no_rank_go_on(session, transport, meeting):
    crew = make_ranks(4)
    runtime.get(crew[1].die_at_meeting.remote(meeting), timeout=LONG_S)
    with InputNode() as inp:
        grads = [rank.grad.bind(inp, 4_000_000) for rank in crew]
        found = allreduce.bind(grads, transport=transport)
    with MultiOutputNode(found).experimental_compile() as graph:
        errors = [died(ref) for ref in graph.execute(0)]
        assert {str(error) for error in errors} == {str(errors[0])}


@runtime.remote
class Interruptible:
    """A rank whose signal handler raises; one may be told to come late."""

    def bring(self, order, rank):
        signal.signal(signal.SIGUSR1, lambda *_: _raise(LookupError("interrupted here")))
        if order is not None and order.at == rank:
            obey(order)
        return torch.full((3,), float(rank))

    def pid(self):
        return os.getpid()

    def total(self, tensor):
        return float(tensor[0])


def _raise(error):
    raise error


@pytest.mark.parametrize("transport", ["shm", "gloo"])
def test_a_signal_handler_that_raises_while_its_rank_waits_fails_the_execution(
    session, tmp_path, transport
):
    crew = [Interruptible.remote() for _ in range(2)]
    with InputNode() as inp:
        sums = allreduce.bind(
            [actor.bring.bind(inp, rank) for rank, actor in enumerate(crew)], transport=transport
        )
        totals = [actor.total.bind(one) for actor, one in zip(crew, sums, strict=True)]
    pid = pids_of(crew)[0]
    with MultiOutputNode(totals).experimental_compile() as graph:
        for number in range(3):
            assert runtime.get(graph.execute(None), timeout=LONG_S) == [1.0, 1.0]
            path = tmp_path / str(number)
            ours, theirs = graph.execute(Order(1, "wait", str(path)))
            wait_until(lambda: "allreduce" in where(graph)["Interruptible(1)"])
            os.kill(pid, signal.SIGUSR1)
            path.touch()
            with pytest.raises(LookupError, match="interrupted here") as caught:
                runtime.get(ours, timeout=LONG_S)
            assert caught.value.rank == 0
            assert runtime.get(theirs, timeout=LONG_S) == 1.0


def test_two_graphs_on_the_same_ranks_and_the_end_of_one_of_them(session, tmp_path):
    crew = make_ranks(2)
    left = reduce(crew).experimental_compile()
    right = reduce(crew, 50_000).experimental_compile()
    for _ in range(20):
        refs = [graph.execute(0) for graph in (left, right, right, left)]
        assert [runtime.get(ref, timeout=LONG_S) for ref in refs] == [[6.0, 6.0]] * 4
    # One rank has come to the collective, the other never will.
    left.execute(Order(2, "wait", str(tmp_path / "release")))
    later = right.execute(0)
    ending = Background(left.teardown)
    (tmp_path / "release").touch()
    ending.result()
    assert runtime.get(later, timeout=LONG_S) == [6.0, 6.0]
    assert runtime.get(right.execute(0), timeout=LONG_S) == [6.0, 6.0]
    right.teardown()
