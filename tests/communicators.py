"""Communicators that tests give to graphs."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from compiled_dag import Communicator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Bare(Communicator):
    """Knows its members and can do nothing."""

    def __init__(self, actors: Sequence[Any], name: str = "accelerator") -> None:
        self._actors = list(actors)
        self._name = name
        self._rank: int | None = None

    def initialize(self, rank: int) -> None:
        self._rank = rank

    def get_actor_handles(self) -> list[Any]:
        return self._actors

    def get_rank(self, actor: Any) -> int:
        if actor not in self._actors:
            raise ValueError(f"{actor!r} is no member")
        return self._actors.index(actor)

    def get_self_rank(self) -> int | None:
        return self._rank

    def destroy(self) -> None:
        pass

    def get_transport_name(self) -> str:
        return self._name


class PaperCommunicator(Bare):
    """One that claims to send, receive and reduce, for graphs that never run."""

    def send(self, value: Any, peer_rank: int) -> None:
        raise AssertionError

    def recv(self, shape: Any, dtype: Any, peer_rank: int, allocator: Any = None) -> Any:
        raise AssertionError

    def allreduce(self, send_buf: Any, recv_buf: Any, op: Any) -> None:
        raise AssertionError


class Pipes(Bare):
    """A communicator over named pipes: threads of one process, or processes, can be its ranks.

    What happens to its copies is noted in files of the folder.
    """

    def __init__(self, actors: Sequence[Any], folder: Path, *, fails: str = "") -> None:
        super().__init__(actors, "pipes")
        self._folder = folder
        self._fails = fails
        self._ends: dict[tuple[int, int], int] = {}
        for pair in self._pairs():
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self._path(*pair))

    def _pairs(self) -> list[tuple[int, int]]:
        ranks = range(len(self._actors))
        return [(source, target) for source in ranks for target in ranks if source != target]

    def _path(self, source: int, target: int) -> Path:
        return self._folder / f"{source}-{target}"

    def note(self, what: str) -> None:
        with (self._folder / f"rank {self._rank}").open("a") as file:
            file.write(f"{what}\n")

    def initialize(self, rank: int) -> None:
        super().initialize(rank)
        self.note("initialize")
        if self._fails == f"initialize {rank}":
            raise OSError("no pipes today")
        for source, target in self._pairs():
            # One order on all ranks, because each open waits for the other end's.
            if rank == source:
                self._ends[source, target] = os.open(self._path(source, target), os.O_WRONLY)
            elif rank == target:
                self._ends[source, target] = os.open(self._path(source, target), os.O_RDONLY)

    def destroy(self) -> None:
        self.note("destroy")
        while self._ends:
            os.close(self._ends.popitem()[1])
        if self._fails == "destroy":
            raise OSError("the pipes are rusty")

    def send(self, value: Any, peer_rank: int) -> None:
        assert value.is_contiguous()
        assert not value.requires_grad
        if self._fails == "send":
            self.destroy()
            raise OSError("the pipe burst")
        data = memoryview(value.reshape(-1).view(torch.uint8).numpy())
        while data:
            data = data[os.write(self._ends[self._rank, peer_rank], data) :]

    def recv(self, shape: Any, dtype: Any, peer_rank: int, allocator: Any = None) -> Any:
        value = torch.empty(shape, dtype=dtype) if allocator is None else allocator(shape, dtype)
        rest = memoryview(value.reshape(-1).view(torch.uint8).numpy())
        while rest:
            count = os.readv(self._ends[peer_rank, self._rank], [rest])
            if not count:
                raise EOFError(f"rank {peer_rank} has closed its end")
            rest = rest[count:]
        return value if self._fails != "recv" else value.reshape(-1)

    def _exchange(self, chunks: Sequence[Any]) -> list[Any]:
        """Send chunk r to rank r; return what all ranks sent here."""
        for peer, chunk in enumerate(chunks):
            if peer != self._rank:
                self.send(chunk.contiguous(), peer)
        own = chunks[self._rank]
        return [
            own if peer == self._rank else self.recv(own.shape, own.dtype, peer)
            for peer in range(len(chunks))
        ]

    def _from_all(self, value: Any) -> list[Any]:
        return self._exchange([value] * self.get_world_size())

    def allreduce(self, send_buf: Any, recv_buf: Any, op: Any) -> None:
        recv_buf.copy_(reduced(self._from_all(send_buf), op))

    def allgather(self, send_buf: Any, recv_buf: Any) -> None:
        recv_buf.copy_(torch.cat(self._from_all(send_buf)))

    def reducescatter(self, send_buf: Any, recv_buf: Any, op: Any) -> None:
        recv_buf.copy_(reduced(self._exchange(send_buf.chunk(self.get_world_size())), op))

    def broadcast(self, send_buf: Any, recv_buf: Any, src_rank: int) -> None:
        recv_buf.copy_(self._from_all(send_buf)[src_rank])

    def reduce(self, send_buf: Any, recv_buf: Any, dst_rank: int, op: Any) -> None:
        result = reduced(self._from_all(send_buf), op)
        if self._rank == dst_rank:
            recv_buf.copy_(result)

    def gather(self, send_buf: Any, recv_buf: Any, dst_rank: int) -> None:
        parts = self._from_all(send_buf)
        assert (recv_buf is None) == (self._rank != dst_rank)
        if recv_buf is not None:
            recv_buf.copy_(torch.cat(parts))

    def scatter(self, send_buf: Any, recv_buf: Any, src_rank: int) -> None:
        if send_buf is None:
            recv_buf.copy_(self.recv(recv_buf.shape, recv_buf.dtype, src_rank))
            return
        for peer, chunk in enumerate(send_buf.chunk(self.get_world_size())):
            if peer == src_rank:
                recv_buf.copy_(chunk)
            else:
                self.send(chunk.contiguous(), peer)

    def all_to_all(self, send_buf: Any, recv_buf: Any) -> None:
        recv_buf.copy_(torch.cat(self._exchange(send_buf.chunk(self.get_world_size()))))


class MadePipes(Pipes):
    """One that every rank makes for itself, as those of a registered accelerator are."""

    folder: ClassVar[Path]

    def __init__(self, *arguments: Any) -> None:
        world_size, number, rank, actors, stream, overlaps = arguments
        super().__init__(actors, self.folder)
        assert world_size == len(actors)
        self.initialize(rank)
        self.note(f"{number}:{stream is not None}:{overlaps}")

    @classmethod
    def generate_communicator_id(cls) -> str:
        return "mine"


def reduced(parts: Sequence[Any], op: Any) -> Any:
    return {"SUM": torch.sum, "MAX": torch.amax}[op.name](torch.stack(parts), 0)


class Threads(Bare):
    """A communicator of ranks that are threads of one process: what each sends, all see."""

    _meetings: ClassVar[dict[int, Threads]] = {}
    """By number; a rank's copy, which has been pickled, finds the first one there."""

    def __init__(self, actors: Sequence[Any]) -> None:
        super().__init__(actors, "threads")
        self.number = len(self._meetings)
        self.barrier = threading.Barrier(len(self._actors))
        self.shown: list[Any] = [None] * len(self._actors)
        self._meetings[self.number] = self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "barrier": None, "shown": None}

    def _all(self, value: Any) -> list[Any]:
        """Return copies of what all ranks bring."""
        meeting = self._meetings[self.number]
        meeting.shown[self._rank or 0] = value
        meeting.barrier.wait(120)
        found = [None if one is None else one.clone() for one in meeting.shown]
        meeting.barrier.wait(120)
        return found

    def _parts(self, value: Any) -> list[Any]:
        """Return this rank's part of what each brings."""
        size, rank = self.get_world_size(), self._rank or 0
        return [one.chunk(size)[rank] for one in self._all(value) if one is not None]

    def allreduce(self, send_buf: Any, recv_buf: Any, op: Any) -> None:
        recv_buf.copy_(reduced_by_numpy(self._all(send_buf), op))

    def reduce(self, send_buf: Any, recv_buf: Any, dst_rank: int, op: Any) -> None:
        recv_buf.copy_(reduced_by_numpy(self._all(send_buf), op))

    def reducescatter(self, send_buf: Any, recv_buf: Any, op: Any) -> None:
        recv_buf.copy_(reduced_by_numpy(self._parts(send_buf), op))

    def broadcast(self, send_buf: Any, recv_buf: Any, src_rank: int) -> None:
        recv_buf.copy_(self._all(send_buf)[src_rank])

    def allgather(self, send_buf: Any, recv_buf: Any) -> None:
        recv_buf.copy_(torch.cat(self._all(send_buf)))

    def gather(self, send_buf: Any, recv_buf: Any, dst_rank: int) -> None:
        parts = self._all(send_buf)
        if recv_buf is not None:
            recv_buf.copy_(torch.cat(parts))

    def scatter(self, send_buf: Any, recv_buf: Any, src_rank: int) -> None:
        recv_buf.copy_(*self._parts(send_buf))

    def all_to_all(self, send_buf: Any, recv_buf: Any) -> None:
        recv_buf.copy_(torch.cat(self._parts(send_buf)))


def reduced_by_numpy(parts: Sequence[Any], op: Any) -> Any:
    """Reduce tensors of any dtype."""
    is_half = parts[0].dtype in (torch.bfloat16, torch.float16)
    stack = torch.stack([part.double() if is_half else part for part in parts]).numpy()
    kinds = {"SUM": np.sum, "PRODUCT": np.prod, "MAX": np.max, "MIN": np.min}
    bits = {"BAND": np.bitwise_and, "BOR": np.bitwise_or, "BXOR": np.bitwise_xor}
    found = bits[op.name].reduce(stack) if op.name in bits else kinds[op.name](stack, axis=0)
    return torch.from_numpy(np.asarray(found).astype(stack.dtype)).to(parts[0].dtype)
