"""What a rank does when its backend fails. See `test_allreduce` for when it does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from collective import header as head
from collective import rank as rank_module
from collective.kinds import ALLREDUCE
from collective.ops import Operation, ReduceOp
from collective.plain import PlainOperation
from collective.preflight import Preflight
from collective.rank import RankGroup
from collective.rank_operation import RankOperation
from compiled_dag import ChannelClosedError, CollectiveError
from compiled_dag.outcome import Error, Place
from tests.collective.parts import at_once

PLACES = [Place(method=f"allreduce, rank {n}", actor=f"Worker({n})", node=n) for n in range(2)]


class FakeBackend:
    """A backend that fails when told to."""

    backend = "fake"
    in_place = True

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.aborted = 0

    def why_not(self, tensor, op) -> None:
        return None

    def empty(self, shape, dtype, device):
        if self.fail == "allocate":
            raise RuntimeError("can't allocate memory")
        return torch.empty(3 if self.fail == "copy" else 2)

    def run(self, kind, send, receive, *, op, root):
        if self.fail == "launch":
            raise RuntimeError("no route to rank 1")
        return self

    def wait(self) -> None:
        if self.fail == "wait":
            raise RuntimeError("connection reset by peer")

    def shortcut(self, *_looks) -> None:
        return None

    def abort(self) -> None:
        self.aborted += 1


@pytest.fixture(params=[RankOperation, PlainOperation])
def pair(request, ranks, monkeypatch):
    """Makes two ranks; the first one's backend fails as told.

    A `PlainOperation` has one execution behind it: from then on it goes its own way.
    """
    monkeypatch.setattr(rank_module, "_DEATH_NOTICE_S", 0.01)

    def make(fail: str = ""):
        group = ranks(2)
        operations = []
        for number, (header, waiter) in enumerate(zip(group.headers, group.waiters, strict=True)):
            backend = FakeBackend()
            preflight = Preflight(header, number, waiter)
            one = RankGroup(header, preflight, backend, number, waiter)
            context = SimpleNamespace(resources={"group 5": one}, waiter=waiter)
            operation = request.param(
                context, 5, number, PLACES, Operation(kind=ALLREDUCE, op=ReduceOp.SUM)
            )
            operation.group = one
            operations.append(operation)
        if request.param is PlainOperation:
            run(operations)
        operations[0].group.process_group.fail = fail
        return operations

    return make


def run(operations, execution=0):
    """Run one operation on all ranks; return what each has afterwards."""
    values = (torch.ones(2),)
    results = at_once(*(lambda op=op: op.wait(op.start(values, execution)) for op in operations))
    return [result[0] for result in results]


def test_ranks_that_agree_get_what_the_backend_gives(pair) -> None:
    for result in run(pair()):
        assert torch.equal(result, torch.ones(2))


@pytest.mark.parametrize(
    ("fail", "text"),
    [
        ("launch", "no route to rank 1"),
        ("wait", "connection reset by peer"),
    ],
)
def test_a_backend_that_fails_gives_the_group_up_and_says_so(pair, fail, text) -> None:
    operations = pair(fail)
    failed, _ = run(operations, execution=3)
    assert isinstance(failed, Error)
    error = failed.exception()
    assert isinstance(error, CollectiveError)
    told = f"allreduce(SUM) failed in fake on Worker(0), rank 0: {text}"
    assert told in str(error)
    assert "The group cannot be used any more" in str(error)
    assert (error.rank, error.execution) == (0, 3)
    assert operations[0].group.process_group.aborted == 1
    assert operations[1].group.header.state == head.FAULTED
    for later in run(operations, execution=4):  # every rank knows why
        assert told in str(later.exception())


@pytest.mark.parametrize(
    ("fail", "text"),
    [("allocate", "can't allocate memory"), ("copy", "The size of tensor a (3) must match")],
)
def test_what_cannot_be_staged_is_an_error_of_that_execution_on_every_rank(
    pair, fail, text
) -> None:
    operations = pair(fail)
    for result in run(operations, execution=3):
        error = result.exception()
        assert text in str(error)
        assert (error.rank, error.execution) == (0, 3)
    operations[0].group.process_group.fail = ""
    for result in run(operations, execution=4):
        assert torch.equal(result, torch.ones(2))


def test_a_group_that_failed_refuses_every_later_operation_on_every_rank(pair) -> None:
    operations = pair("wait")
    run(operations)
    for execution in (1, 2):
        for result in run(operations, execution):
            assert isinstance(result, Error)
            assert "compile the graph again" in str(result.exception())


def test_a_failure_that_is_a_death_is_never_seen(pair) -> None:
    first, second = pair("wait")

    def die() -> None:
        second.wait(second.start((torch.ones(2),), 0))
        second.group.header.end(head.BROKEN)  # as the driver does when it hears of the death

    rank_module._DEATH_NOTICE_S = 30.0
    result, _ = at_once(lambda: first.wait(first.start((torch.ones(2),), 0)), die)
    assert isinstance(result, ChannelClosedError)


def test_the_end_of_the_group_releases_peers_that_are_in_the_backend_already(pair) -> None:
    first, second = pair()
    second.group.header.end(head.CLOSED)
    (result,) = at_once(lambda: first.start((torch.ones(2),), 0))
    assert isinstance(result, ChannelClosedError)
    assert first.group.process_group.aborted == 1


def test_an_error_is_passed_on_without_asking_the_backend(pair) -> None:
    operations = pair("launch")
    bad = Error.capture(ValueError("bad"), PLACES[1])
    results = at_once(
        lambda: operations[0].start((torch.ones(2),), 4), lambda: operations[1].start((bad,), 4)
    )
    assert [result.exception().rank for result in results] == [1, 1]
    assert [result.exception().execution for result in results] == [4, 4]
    assert operations[0].group.process_group.aborted == 0


def test_a_rank_that_leaves_lets_go_of_its_backend(pair) -> None:
    first, _ = pair()
    first.group.close()
    assert first.group.process_group.aborted == 1
