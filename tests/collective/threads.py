"""Ranks of a shared-memory group on threads, over plain memory: no process, no shared memory."""

from __future__ import annotations

import threading
from typing import Any

import torch

from collective.exchange import Exchange
from collective.kinds import Kind
from collective.shm_group import SharedMemoryGroup
from tests.collective.parts import PATIENCE_S, at_once


class ThreadMeetings:
    """One rank's view of a barrier that counts."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier
        self.reached = 0

    def meet(self) -> None:
        self._barrier.wait(PATIENCE_S)
        self.reached += 1


class ThreadGroup:
    """All ranks of a group; slots are of `slot_bytes`, so that little is much."""

    def __init__(self, world_size: int, slot_bytes: int) -> None:
        memory = memoryview(bytearray(2 * world_size * slot_bytes))
        barrier = threading.Barrier(world_size)
        self.meetings = [ThreadMeetings(barrier) for _ in range(world_size)]
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
        sample = tensors[root if kind.root == "src_rank" else rank]
        send = None
        if receive is None and kind.gets(rank, root):
            rows, *rest = kind.part(tuple(sample.shape), size, rank) or (1,)
            shape = (rows * size if kind.from_all else rows, *rest) if sample.dim() else ()
            receive = group.empty(shape, sample.dtype, torch.device("cpu"))
            receive.zero_()
        if kind.brings(rank, root):
            send = group.stage(kind.name, tensors[rank], op, root)
        self.meetings[rank].meet()  # the preflight
        if sample.numel():
            group.run(kind.name, send, receive, op=op, root=root)
        return receive
