"""Ranks of a shared-memory group on threads, over plain memory: no process, no shared memory."""

from __future__ import annotations

import threading
from typing import Any

import torch

from collective.exchange import Exchange
from collective.kinds import Kind
from collective.shm_group import SharedMemoryGroup
from compiled_dag.outcome import Error
from tests.collective.parts import PATIENCE_S, at_once


class ThreadMeetings:
    """One rank's view of a barrier that counts."""

    def __init__(self, barrier: threading.Barrier, rank: int, spoils: dict[int, Error]) -> None:
        self._barrier = barrier
        self._rank = rank
        self._spoils = spoils
        self.reached = 0

    def meet(self) -> None:
        self._barrier.wait(PATIENCE_S)
        self.reached += 1

    def spoil(self, failure: Exception) -> None:
        self._spoils[self._rank] = Error.capture(failure, rank=self._rank)

    def spoiled(self) -> Error | None:
        return next(iter(self._spoils.values()), None)


class ThreadGroup:
    """All ranks of a group; slots are of `slot_bytes`, so that little is much."""

    def __init__(self, world_size: int, slot_bytes: int) -> None:
        memory = memoryview(bytearray(2 * world_size * slot_bytes))
        barrier = threading.Barrier(world_size)
        self.quick_ranks: set[int] = set()
        """Which ranks take shortcuts wherever there is one."""
        spoils: dict[int, Error] = {}
        self.meetings = [ThreadMeetings(barrier, rank, spoils) for rank in range(world_size)]
        self.groups = [
            SharedMemoryGroup(Exchange(memory, rank, world_size, meetings))
            for rank, meetings in enumerate(self.meetings)
        ]

    def run(
        self,
        kind: Kind,
        tensors: list[Any],
        op: str | None = None,
        root: int = 0,
        into: list[Any] | None = None,
    ) -> list:
        """Do one operation; returns what every rank gets, which is in `into` if that is given."""
        return self.run_all([(kind, tensors, op, root)], into)[0]

    def run_all(
        self,
        operations: list[tuple[Kind, list[Any], str | None, int]],
        into: list[Any] | None = None,
    ) -> list[list]:
        """Do operations one after the other, as ranks do, none waiting for the others between."""

        def all_of(rank: int) -> list:
            receive = into and into[rank]
            return [self._run(rank, *operation, receive) for operation in operations]

        results = at_once(*(lambda rank=rank: all_of(rank) for rank in range(len(self.groups))))
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [list(of_one) for of_one in zip(*results, strict=True)]

    def _run(
        self, rank: int, kind: Kind, tensors: list[Any], op: str | None, root: int, receive: Any
    ) -> Any:
        group, size = self.groups[rank], len(self.groups)
        if rank in self.quick_ranks and kind.root != "src_rank":
            return self._run_quick(rank, kind, tensors[rank], op, root)
        sample = tensors[root if kind.root == "src_rank" else rank]
        send = None
        if receive is None and kind.gets(rank, root):
            shape = shape_of_result(kind, sample, size, rank)
            receive = group.empty(shape, sample.dtype, torch.device("cpu"))
            receive.zero_()
        if kind.brings(rank, root):
            send = group.stage(kind.name, tensors[rank], op, root)
        self.meetings[rank].meet()  # the preflight
        if sample.numel():
            group.run(kind.name, send, receive, op=op, root=root)
        return receive

    def _run_quick(self, rank: int, kind: Kind, tensor: Any, op: str | None, root: int) -> Any:
        shape = shape_of_result(kind, tensor, len(self.groups), rank)
        shape = shape if kind.gets(rank, root) else None
        group, meetings = self.groups[rank], self.meetings[rank]
        shortcut = group.shortcut(kind.name, tensor, op, root, shape)
        if shortcut is not None and shortcut.lay(tensor):
            meetings.meet()
            return shortcut.take(tensor)
        receive = None if shape is None else group.empty(shape, tensor.dtype, torch.device("cpu"))
        send = group.stage(kind.name, tensor, op, root)
        meetings.meet()
        if tensor.numel():
            group.run(kind.name, send, receive, op=op, root=root)
        return receive


def shape_of_result(kind: Kind, sample: torch.Tensor, world_size: int, rank: int) -> Any:
    if not sample.dim():
        return ()
    rows, *rest = kind.part(tuple(sample.shape), world_size, rank)
    return (rows * world_size if kind.from_all else rows, *rest)
