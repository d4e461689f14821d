"""Every eager operation, ranks on threads and the real gloo, against numpy. See `test_eager`."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import collective
from collective import ReduceOp, lane
from collective.member import Member
from collective.standing import Standing
from compiled_dag import CollectiveError, CollectiveMismatchError, TaskError
from tests.collective.members import members, raised  # noqa: F401  a fixture
from tests.collective.oracle import BITWISE, DTYPES, REDUCE, numbers, small

W = 3
BACKENDS = ["gloo", "shm"]
SHAPES = [(), (1,), (5,), (3, 2), (2, 0, 3), (30_011, 3)]
REDUCED = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]


def assert_same(found, expected, dtype) -> None:
    assert found.dtype == getattr(torch, dtype)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_array_equal(numbers(found), expected)


def zeros(shape, dtype, count=W):
    return [torch.zeros(shape, dtype=getattr(torch, dtype)) for _ in range(count)]


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same tensor where no two elements are neighbours."""
    wide = torch.zeros((*tensor.shape, 2), dtype=tensor.dtype)
    wide[..., 0] = tensor
    return wide[..., 0]


def forms():
    """Yield every shape with how tensors of it are to lie in memory."""
    for number, shape in enumerate(SHAPES):
        yield shape, strided if number % 2 else torch.clone
        if number < 2:
            yield shape, torch.clone if number % 2 else strided


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_only_moves_moves_in_every_dtype_and_shape(members, dtype, backend) -> None:  # noqa: F811
    def each(rank):
        for shape, lay in forms():
            brought = [small(shape, dtype, source) for source in range(W)]
            mine = lay(brought[rank])

            got = [lay(one) for one in zeros(shape, dtype)]
            collective.allgather(got, mine)
            for found, expected in zip(got, brought, strict=True):
                assert_same(found, numbers(expected), dtype)

            got = [lay(one) for one in zeros(shape, dtype)] if rank == 1 else None
            collective.gather(mine, got, 1)
            for found, expected in zip(got or (), brought, strict=rank == 1):
                assert_same(found, numbers(expected), dtype)

            one = lay(*zeros(shape, dtype, 1))
            collective.scatter(one, [lay(part) for part in brought] if rank == 2 else None, 2)
            assert_same(one, numbers(brought[rank]), dtype)

            one = lay(brought[rank])
            collective.broadcast(one, 2)
            assert_same(one, numbers(brought[2]), dtype)

            out = [lay(one) for one in zeros(shape, dtype)]
            parts = [lay(small(shape, dtype, rank + 5 * target)) for target in range(W)]
            collective.all_to_all(out, parts)
            for source, found in enumerate(out):
                assert_same(found, numbers(small(shape, dtype, source + 5 * rank)), dtype)

            if rank == 0:
                collective.send(mine, 1)
            elif rank == 1:
                one = lay(*zeros(shape, dtype, 1))
                collective.recv(one, 0)
                assert_same(one, numbers(brought[0]), dtype)

    assert members(W, backend=backend).run_all(each) == [None] * W


def ops_of(dtype):
    kind = getattr(torch, dtype)
    for op in REDUCE:
        undefined = "AVG" if not kind.is_floating_point else BITWISE
        if op not in undefined and not (dtype == "bool" and op == "SUM"):
            yield op


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", REDUCED)
def test_what_reduces_is_numpys(members, dtype, backend) -> None:  # noqa: F811
    def reduced(op, tensors):
        stack = np.stack([numbers(one) for one in tensors])
        return numbers(torch.tensor(np.asarray(REDUCE[op](stack))).to(getattr(torch, dtype)))

    def all_ops(rank, shape, lay):
        for op in ops_of(dtype):
            brought = [small(shape, dtype, source) for source in range(W)]
            expected = reduced(op, brought)

            one = lay(brought[rank])
            collective.allreduce(one, op=ReduceOp[op])
            assert_same(one, expected, dtype)

            one = lay(brought[rank])
            collective.reduce(one, 1, op=ReduceOp[op])
            assert_same(one, expected if rank == 1 else numbers(brought[rank]), dtype)

            one = lay(*zeros(shape, dtype, 1))
            lists = [[small(shape, dtype, s + 5 * t) for t in range(W)] for s in range(W)]
            collective.reducescatter(one, lists[rank], op=ReduceOp[op])
            assert_same(one, reduced(op, [lists[s][rank] for s in range(W)]), dtype)

    def each(rank):
        for shape, lay in forms():
            all_ops(rank, shape, lay)

    assert members(W, backend=backend).run_all(each) == [None] * W


def test_numpy_arrays_are_written_in_place(members) -> None:  # noqa: F811
    def each(rank):
        array = np.full((2, 3), rank + 1, np.float32)
        column = array[:, 1]
        collective.allreduce(column)
        assert array.tolist() == [[rank + 1, 6, rank + 1]] * 2
        outputs = [np.zeros(2, np.int16) for _ in range(W)]
        collective.allgather(outputs, np.full(2, rank, np.int16))
        assert [out.tolist() for out in outputs] == [[r, r] for r in range(W)]
        frozen = np.full(2, rank)
        frozen.flags.writeable = False
        collective.gather(frozen, [np.zeros(2, int) for _ in range(W)])
        collective.broadcast(frozen if rank == 1 else np.zeros(2, int), 1)

    assert members(W).run_all(each) == [None] * W


def test_parameters_and_what_needs_gradients_are_written_in_place(members) -> None:  # noqa: F811
    def each(rank):
        parameter = torch.nn.Parameter(torch.full((2,), float(rank)))
        collective.broadcast(parameter, 1)
        assert parameter.tolist() == [1.0, 1.0]
        assert parameter.requires_grad

    assert members(2).run_all(each) == [None] * 2


def test_a_barrier_waits_for_all(members) -> None:  # noqa: F811
    seen = []

    def each(rank):
        seen.append(rank)
        collective.barrier()
        return len(seen)

    assert members(3).run_all(each) == [3, 3, 3]


# --- what ranks disagree on -----------------------------------------------------------------------

DIFFERENT = {
    "shape": lambda rank: collective.allreduce(torch.ones(3 + rank)),
    "dtype": lambda rank: collective.allreduce(torch.ones(3).to([torch.int, torch.float][rank])),
    "operation": lambda rank: (
        collective.allreduce(torch.ones(3)) if rank else collective.broadcast(torch.ones(3))
    ),
    "op": lambda rank: collective.allreduce(torch.ones(3), op=[ReduceOp.SUM, ReduceOp.MAX][rank]),
    "root": lambda rank: collective.broadcast(torch.ones(3), rank),
    "barrier": lambda rank: collective.barrier() if rank else collective.allreduce(torch.ones(3)),
    "message": lambda rank: (
        collective.recv(torch.ones(3), 0) if rank else collective.send(torch.ones(4), 1)
    ),
    "message's dtype": lambda rank: (
        collective.recv(torch.ones(2), 0)
        if rank
        else collective.send(torch.ones(1, dtype=torch.float64), 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_difference_is_an_error_on_every_rank_and_the_group_goes_on(members, what) -> None:  # noqa: F811
    session = members(2)
    for error in raised(session.run_all(DIFFERENT[what])):
        assert type(error) is CollectiveMismatchError
        assert "Worker(1)" in str(error)
        assert "Worker(2)" in str(error)
        assert "<-- differs" in str(error)
    tensors = [torch.ones(2), torch.ones(2)]
    assert session.run_all(lambda rank: collective.allreduce(tensors[rank])) == [None, None]
    assert tensors[0].tolist() == [2.0, 2.0]


BAD = {
    "no tensor": (lambda: collective.allreduce([1.0]), ValueError),
    "dtype": (lambda: collective.allreduce(torch.ones(2, dtype=torch.int16)), TypeError),
    "op": (lambda: collective.allreduce(torch.arange(2), op=ReduceOp.AVG), TypeError),
    "sparse": (lambda: collective.allreduce(torch.ones(2, 2).to_sparse()), TypeError),
    "short list": (lambda: collective.allgather([torch.ones(2)], torch.ones(2)), ValueError),
    "no list": (lambda: collective.allgather(torch.ones(2, 2), torch.ones(2)), ValueError),
    "list of others": (
        lambda: collective.allgather([torch.ones(3), torch.ones(2)], torch.ones(2)),
        ValueError,
    ),
    "missing list": (lambda: collective.gather(torch.ones(2), None, 0), ValueError),
    "read-only": (lambda: collective.allreduce(np.broadcast_to(np.ones(1), (4,))), ValueError),
    "expanded": (lambda: collective.allreduce(torch.ones(1).expand(4)), ValueError),
    "expanded array": (
        lambda: collective.allreduce(np.lib.stride_tricks.as_strided(np.ones(1), (4,), (0,))),
        ValueError,
    ),
    "steps that meet": (
        lambda: collective.allreduce(torch.ones(4).as_strided((2, 2), (1, 1))),
        ValueError,
    ),
    "one tensor twice": (
        lambda: collective.allgather([torch.ones(2)] * 2, torch.ones(2)),
        ValueError,
    ),
    "lists that overlap": (
        lambda: collective.all_to_all(
            list(torch.ones(3).as_strided((2, 2), (1, 1))), [torch.ones(2)] * 2
        ),
        ValueError,
    ),
    "many dimensions": (lambda: collective.broadcast(np.ones((1,) * 17), 0), TypeError),
    "strings": (lambda: collective.broadcast(np.array(["a"]), 0), TypeError),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_on_one_rank_is_told_on_all(members, what) -> None:  # noqa: F811
    session = members(2)
    call, kind = BAD[what]
    own, others = raised(session.run(call, collective.barrier))
    assert type(own) is kind
    assert re.match(r"\w+(\(.*?\))? of group 'default': ", str(own))
    assert isinstance(others, TaskError)
    assert isinstance(others, kind)
    assert others.rank == 0
    assert "Worker(1)" in str(others)
    assert session.run_all(lambda _: collective.barrier()) == [None, None]


def test_a_message_that_cannot_be_taken_is_told_at_both_ends(members) -> None:  # noqa: F811
    session = members(2)
    sent, got = raised(
        session.run(lambda: collective.send(torch.ones(2), 1), lambda: collective.recv("here", 0))
    )
    assert type(got) is ValueError
    assert type(sent) is CollectiveError
    what = "recv(src_rank=0) of group 'default': the tensor must be"
    assert str(got).startswith(what)
    assert f"rank 1 (Worker(2)) cannot: ValueError: {what}" in str(sent)
    assert session.run_all(lambda _: collective.barrier()) == [None, None]


# --- arguments ------------------------------------------------------------------------------------

WRONG = [
    (lambda: collective.allreduce(torch.ones(1), "other"), RuntimeError, "group 'other'"),
    (lambda: collective.allreduce(torch.ones(1), op="SUM"), ValueError, "not a reduce op"),
    (lambda: collective.allreduce(torch.ones(1), ReduceOp.MAX), ValueError, "op=ReduceOp.MAX"),
    (lambda: collective.broadcast(torch.ones(1), "g"), ValueError, "is given as group_name="),
    (lambda: collective.broadcast(torch.ones(1), 2), ValueError, "src_rank=2 is no rank"),
    (lambda: collective.reduce(torch.ones(1), -1), ValueError, "dst_rank=-1 is no rank"),
    (lambda: collective.gather(torch.ones(1), None, 1.0), ValueError, "dst_rank=1.0 is no rank"),
    (lambda: collective.send(torch.ones(1), 0), RuntimeError, "this is rank 0 itself"),
    (lambda: collective.recv(torch.ones(1), 7), ValueError, "src_rank=7 is no rank"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), WRONG)
def test_wrong_arguments_are_refused_at_once(members, monkeypatch, call, kind, text) -> None:  # noqa: F811
    session = members(2)
    monkeypatch.setattr("collective.eager.member_home", lambda _: session.homes[0])
    (error,) = raised(session.run(call))
    assert type(error) is kind
    assert text in str(error)
    assert session.run_all(lambda _: collective.barrier()) == [None, None]


# --- work handles ---------------------------------------------------------------------------------


def test_operations_that_nobody_waits_for_are_done_in_order(members) -> None:  # noqa: F811
    def each(rank):
        tensors = [torch.full((2,), float(number)) for number in range(8)]
        works = [collective.allreduce(one, async_op=True) for one in tensors]
        last = torch.ones(1)
        collective.allreduce(last)  # after all of them
        assert all(work.is_completed() for work in works)
        for work in works:
            work.wait()
        assert [one.tolist() for one in tensors] == [[2.0 * n, 2.0 * n] for n in range(8)]
        return repr(works[0])

    assert members(2).run_all(each) == ["<allreduce(SUM) of group 'default', done>"] * 2


def test_on_a_thread_the_stream_is_the_callers(members, monkeypatch) -> None:  # noqa: F811
    """What torch keeps per thread, of GPUs that are not here."""
    current = threading.local()
    seen: list[int] = []

    @contextmanager
    def stream(entered):
        before, current.stream = current_stream(0), entered
        yield
        current.stream = before

    def current_stream(_device):
        return getattr(current, "stream", SimpleNamespace(cuda_stream=0))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    operate = Member._operate

    def noted(self, *arguments):
        seen.append(current_stream(0).cuda_stream)
        operate(self, *arguments)

    monkeypatch.setattr(Member, "_operate", noted)

    def body(rank):
        with stream(SimpleNamespace(cuda_stream=rank + 1)):
            work = collective.allreduce(torch.ones(2), async_op=True)
        collective.barrier()
        work.wait()

    members(2).run_all(body)
    assert sorted(seen) == [0, 0, 1, 2]


def test_messages_both_ways_need_no_order(members) -> None:  # noqa: F811
    def each(rank):
        big = torch.full((700_000,), float(rank))
        got = torch.zeros(700_000)
        works = [collective.send(big, 1 - rank, async_op=True) for _ in range(3)]
        for _ in range(3):
            collective.recv(got, 1 - rank)
        for work in works:
            work.wait()
        return got.unique().tolist()

    assert members(2).run_all(each) == [[1.0], [0.0]]


def test_work_raises_what_went_wrong_each_time_it_is_asked(members) -> None:  # noqa: F811
    def each(rank):
        work = collective.allreduce(torch.ones(2 + rank), async_op=True)
        for _ in range(2):
            with pytest.raises(CollectiveMismatchError):
                work.wait()
        return work.is_completed()

    assert members(2).run_all(each) == [True, True]


def test_an_error_that_nobody_waited_for_is_printed(members, capsys) -> None:  # noqa: F811
    def each(rank):
        collective.allreduce(torch.ones(2 + rank), async_op=True)
        collective.barrier()

    assert members(2).run_all(each) == [None, None]
    text = capsys.readouterr().err
    assert text.count("allreduce(SUM) of group 'default' failed, and nobody waited for it") == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["allreduce", "recv"])
def test_who_leaves_breaks_off_what_it_still_waits_in(members, monkeypatch, backend, name) -> None:  # noqa: F811
    monkeypatch.setattr(lane, "_END_S", 0.2)
    begin = Standing.begin

    def noted(standing, text):
        begun.set()
        return begin(standing, text)

    monkeypatch.setattr(Standing, "begin", noted)

    def each(rank):
        if rank:
            assert left.wait(120)
            return collective.barrier()
        tensor = torch.ones(2)
        work = (
            collective.allreduce(tensor, async_op=True)
            if name == "allreduce"
            else collective.recv(tensor, 1, async_op=True)
        )
        assert begun.wait(120)
        actors.homes[0].members["default"].close()
        left.set()
        return work.wait()

    begun, left, actors = threading.Event(), threading.Event(), members(2, backend=backend)
    for error in raised(actors.run_all(each)):
        assert type(error) is CollectiveError
        assert "rank 0 (Worker(1)) has left the group (destroy_collective_group)" in str(error)


NAMED = [
    "allreduce", "allgather", "reducescatter", "broadcast", "scatter", "reduce", "gather",
    "all_to_all", "barrier",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_wrong_arguments_are_told_by_the_name_that_was_called(name) -> None:
    call = getattr(collective, name)
    with pytest.raises(TypeError, match=rf"^collective\.{name}\(\) got an unex.*Known: "):
        call(no_such_argument=1)
