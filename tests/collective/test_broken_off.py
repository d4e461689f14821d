"""Exceptions in the middle of an operation over shared memory: at every line, in every call."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import collective
from collective import arithmetic, exchange, kinds, shortcut
from collective import header as head
from collective import rank as rank_module
from collective.ops import Operation, ReduceOp
from collective.plain import PlainOperation
from collective.preflight import Preflight
from collective.rank import RankBarrier, RankGroup
from collective.rank_operation import RankOperation
from collective.shm_group import SharedMemoryGroup
from collective.slots import memory_bytes
from compiled_dag import CollectiveError
from compiled_dag.outcome import Error, Place
from tests.collective.members import members  # noqa: F401  a fixture
from tests.collective.parts import at_once

FOLDER = str(Path(collective.__file__).parent)
LENGTHS = {"small": 5, "one piece": 20_000, "pieces": 1_300_000}
CULPRIT = 1


class BoomError(Exception):
    """What a signal handler raises, or a library."""


class Crew:
    """All ranks of a group on threads, with one operation."""

    def __init__(self, ranks, size: int, kind: str, bucket_bytes: int | None = None) -> None:
        made = ranks(size, memory_bytes(size))
        places = [
            Place(method=f"{kind}, rank {n}", actor=f"Worker({n})", node=n) for n in range(size)
        ]
        self.groups, self.operations = [], []
        for rank, (header, waiter) in enumerate(zip(made.headers, made.waiters, strict=True)):
            preflight = Preflight(header, rank, waiter)
            backend = SharedMemoryGroup.join(header, preflight, rank, waiter)
            group = RankGroup(header, preflight, backend, rank, waiter)
            context = SimpleNamespace(resources={"group 5": group}, waiter=waiter)
            self.groups.append(group)
            self.operations.append(_part(context, rank, places, kind, bucket_bytes))

    def run(self, values, before=lambda _rank: None) -> list:
        """Run one execution; return what each rank has, or what has left its code."""

        def work(rank: int):
            operation = self.operations[rank]
            before(rank)
            try:
                return operation.wait(operation.start(values[rank], 3))
            except BaseException:
                self.groups[rank].header.end(head.BROKEN)  # as the driver does at a death
                raise
            finally:
                sys.settrace(None)

        return at_once(*(lambda rank=rank: work(rank) for rank in range(len(self.operations))))

    @property
    def goes_on(self) -> bool:
        return self.groups[0].header.state == head.OPEN


def _part(context, rank, places, kind, bucket_bytes):
    if kind == "barrier":
        return RankBarrier(context, 5, rank, places, "barrier")
    operation = Operation(
        kind=getattr(kinds, kind.upper()),
        op=ReduceOp.SUM if kind in ("allreduce", "reduce", "reducescatter") else None,
        num_buckets=1 if bucket_bytes is None else 2,
        bucket_bytes=bucket_bytes,
    )
    fits = PlainOperation.fits(operation, rank)
    return (PlainOperation if fits else RankOperation)(context, 5, rank, places, operation)


def brought(size: int, length: int, buckets: int = 1) -> list:
    length -= length % size
    return [
        tuple(torch.arange(length, dtype=torch.float32) + rank + one for one in range(buckets))
        for rank in range(size)
    ]


def same(one, other) -> bool:
    return one is other is None or torch.equal(one, other)


def check_execution(results, right) -> None:
    """All have what is right, or an error that names the culprit, who has one in any case."""
    for rank, (result, expected) in enumerate(zip(results, right, strict=True)):
        assert not isinstance(result, BaseException), result
        for one, good in zip(result, expected, strict=True):
            if isinstance(one, Error):
                error = one.exception()
                assert "Boom" in str(error)
                assert f"Worker({CULPRIT})" in str(error)
            else:
                assert rank != CULPRIT
                assert same(one, good)


def check_what_follows(crew, values, right) -> None:
    """Either all goes on, or all say why not."""
    for _ in range(3):
        for result, expected in zip(crew.run(values), right, strict=True):
            for one, good in zip(result, expected, strict=True):
                if crew.goes_on:
                    assert same(one, good)
                else:
                    error = one.exception()
                    assert isinstance(error, CollectiveError)
                    assert f"Worker({CULPRIT})" in str(error)
                    assert "Boom" in str(error)


class Bomb:
    """Raises on the n-th line of this package that a thread comes to."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.place = ""

    def plant(self, rank: int) -> None:
        if rank == CULPRIT:
            sys.settrace(self._trace)

    def _trace(self, frame, event, _arg):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line" and not self.place:
            self.left -= 1
            if not self.left:
                self.place = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
                raise BoomError(self.place)
        return self._trace


OUTSIDE = {f"{module}.{name}" for module, name in (
    ("plain", "start"), ("plain", "wait"), ("plain", "_result"),
    ("rank", "start"), ("rank", "wait"),
    ("rank_operation", "wait"), ("rank_operation", "_results"), ("rank_operation", "_finish"),
)}  # fmt: skip
"""What has lines before and after those that anybody watches over: the actor ends there."""


@pytest.mark.parametrize(
    ("kind", "size", "length", "over_when_met"),
    [
        ("allreduce", 2, "small", True),
        ("allreduce", 3, "small", True),
        ("allreduce", 2, "one piece", True),
        ("allreduce", 3, "one piece", False),
        ("allreduce", 2, "pieces", False),
        ("allgather", 2, "small", True),
        ("reducescatter", 3, "one piece", True),
        ("broadcast", 3, "small", False),
        ("barrier", 3, "small", True),
    ],
)
def test_an_exception_on_any_line_neither_hangs_nor_lies(
    ranks, monkeypatch, kind, size, length, over_when_met
) -> None:
    monkeypatch.setattr(rank_module, "_DEATH_NOTICE_S", 0.0)
    values = brought(size, LENGTHS[length])
    for number in itertools.count(1):
        crew = Crew(ranks, size, kind)
        for _ in range(2):  # the second one may be by a shortcut, as the third then is
            right = crew.run(values)
        bomb = Bomb(number)
        results = crew.run(values, bomb.plant)
        if not bomb.place:
            break
        if isinstance(results[CULPRIT], BoomError):
            assert bomb.place in OUTSIDE
            continue
        check_execution(results, right)
        check_what_follows(crew, values, right)
        if over_when_met:
            assert crew.goes_on or bomb.place in AFTER_MEETING
    assert number > 40


AFTER_MEETING = {"plain._start", "exchange.run", "exchange.meetings", "shm_group.run"}
"""Where an exception that is not this package's own ends the group, though it need not."""


class Fuse:
    """Has the n-th call of the culprit's in what may raise run out of memory."""

    CALLS = (
        (SharedMemoryGroup, "empty"),
        (SharedMemoryGroup, "stage"),
        (exchange.Exchange, "_lay"),
        (exchange.Exchange, "_read"),
        (exchange.Exchange, "_lay_slices"),
        (exchange.Exchange, "_combine_slice"),
        (exchange.Exchange, "_read_results"),
        (shortcut.SmallShortcut, "lay"),
        (shortcut.SmallShortcut, "take"),
    )

    def __init__(self, monkeypatch) -> None:
        self.calls = 0
        self.at = 0
        self.armed = False
        self._thread: int | None = None
        for owner, name in self.CALLS:
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def light(self, rank: int) -> None:
        if rank == CULPRIT:
            self._thread = threading.get_ident()
            self.calls = 0

    def _wrapped(self, function):
        def call(*args):
            if self.armed and threading.get_ident() == self._thread:
                self.calls += 1
                if self.calls == self.at:
                    raise MemoryError("Boom")
            return function(*args)

        return call


@pytest.mark.parametrize(
    ("kind", "size", "length", "bucket_bytes"),
    [
        ("allreduce", 2, "small", None),
        ("allreduce", 2, "pieces", None),
        ("allreduce", 3, "one piece", None),
        ("allreduce", 3, "pieces", None),
        ("allreduce", 2, "pieces", 1),
        ("allreduce", 3, "one piece", 1),
        ("allgather", 3, "pieces", None),
        ("all_to_all", 2, "pieces", None),
        ("reducescatter", 3, "pieces", None),
        ("reducescatter", 3, "small", None),
    ],
)
def test_a_rank_without_memory_fails_the_execution_and_not_the_group(
    ranks, monkeypatch, kind, size, length, bucket_bytes
) -> None:
    fuse = Fuse(monkeypatch)
    values = brought(size, LENGTHS[length], 1 if bucket_bytes is None else 2)
    crew = Crew(ranks, size, kind, bucket_bytes)
    for _ in range(2):
        right = crew.run(values)
    for number in itertools.count(1):
        fuse.at, fuse.armed = number, True
        results = crew.run(values, fuse.light)
        fuse.armed = False
        if fuse.calls < number:
            break
        check_execution(results, right)
        assert crew.goes_on
        failed = {rank for rank, result in enumerate(results) if isinstance(result[0], Error)}
        # Only what comes after the last meeting fails on one rank alone.
        alone = number == last_call(crew, fuse, values)
        assert failed == ({CULPRIT} if alone else set(range(size)))
        check_what_follows(crew, values, right)
    assert number > 2


def last_call(crew, fuse, values) -> int:
    fuse.at, fuse.armed = 0, True
    crew.run(values, fuse.light)
    fuse.armed = False
    return fuse.calls


@pytest.mark.parametrize("where", ["_lay", "_read"])
def test_an_eager_operation_fails_on_all_ranks_and_the_group_goes_on(
    members,  # noqa: F811
    monkeypatch,
    where,
) -> None:
    session = members(2, backend="shm")
    length = LENGTHS["pieces"]
    function, broken = getattr(exchange.Exchange, where), []

    def fail(self, plan, send, *rest):
        if self._rank == CULPRIT and rest[-2] == 1 and not broken:
            broken.append(self)
            raise MemoryError("Boom")
        return function(self, plan, send, *rest)

    monkeypatch.setattr(exchange.Exchange, where, fail)

    def work(rank: int):
        tensor = torch.full((length,), rank + 1.0)
        collective.allreduce(tensor)
        return tensor

    for error in session.run_all(work):
        assert isinstance(error, MemoryError)
        assert "Boom" in str(error)
    for result in session.run_all(work):
        assert torch.equal(result, torch.full((length,), 3.0))


def test_numpy_is_quiet_in_one_thread_whatever_another_one_says() -> None:
    """Each has its own calls and settings, which stay what they were."""
    big = np.full(4, 3e38, np.float32)
    begun = threading.Barrier(4)

    def work(loud: bool):
        said = np.seterr(all="raise" if loud else "warn")
        call, out = arithmetic.quiet(), np.empty_like(big)
        begun.wait(60)
        for _ in range(2000):
            call(np.add, big, big, out)
            arithmetic.combine_all(np.add, [big, big, big], out)
            assert np.geterr()["over"] == ("raise" if loud else "warn")
            if loud:
                with pytest.raises(FloatingPointError):
                    np.add(big, big)
        np.seterr(**said)
        return out

    for result in at_once(*(lambda loud=loud: work(loud) for loud in (True, False, True, False))):
        assert np.isinf(result).all()
