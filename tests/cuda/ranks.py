"""Ranks of collectives with a GPU in host memory: imported by their processes."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch

import collective
import runtime
from collective import ReduceOp
from collective.join import find_member
from compiled_dag.cuda.device import open_device
from runtime import gpus
from tests.collective.everything import DRAWN
from tests.cuda.drawn import Player
from tests.cuda.fake import SETTINGS


def on_gpu(source: torch.Tensor, *, strided: bool = False) -> torch.Tensor:
    """Return a tensor of the GPU with this content, which comes late."""
    device, shape = open_device(), tuple(source.shape)
    look = str(source.dtype)[6:], (*shape, 2) if strided else shape
    made = device.new(look)
    if strided:
        source, made_of = torch.stack([source, source], dim=-1), made[..., 0]
    else:
        source, made_of = source.contiguous(), made
    if source.numel():
        device.launch(lambda made: made.copy_(source), made)
    return made_of


def taken(device: Any) -> int:
    """Return the bytes of GPU memory that are taken outside torch."""
    return int(device.settings.memory - device.driver.free_bytes())


class HostRank:
    """A rank that brings tensors in host memory, and may have no GPU that can be used."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_host(self, length: int) -> torch.Tensor:
        return torch.full((length,), float(self.rank))

    def ends(self, value: torch.Tensor) -> tuple[int, float, float]:
        return value.numel(), float(value.min()), float(value.max())

    def memory(self) -> int:
        return taken(open_device())


class GpuRank:
    """One rank. Nothing here waits for the GPU but `show` and `die_at`."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.device: Any = open_device()

    def bring(self, case: tuple[str, int], number: int, bucket: int) -> torch.Tensor:
        """See `tests.collective.everything`."""
        brought = DRAWN[number].bring(case, self.rank)[bucket]
        return on_gpu(brought, strided=not brought.is_contiguous())

    def make(self, length: int, number: int = 0) -> torch.Tensor:
        """Return what `total` expects of this rank."""
        return on_gpu(torch.full((length,), float(self.rank + number)))

    def make_own(self, lengths: list[int]) -> torch.Tensor:
        return self.make(lengths[self.rank])

    def on_host(self, length: int) -> torch.Tensor:
        return torch.full((length,), float(self.rank))

    def show(self, value: Any) -> Any:
        self.device.synchronize()
        return value.clone() if isinstance(value, torch.Tensor) else value

    def ends(self, value: torch.Tensor) -> tuple[int, float, float]:
        """Return length, and least and greatest element."""
        self.device.synchronize()
        return value.numel(), float(value.min()), float(value.max())

    def memory(self) -> int:
        """Return the bytes of GPU memory that are taken outside torch."""
        return taken(self.device)

    def pid(self) -> int:
        return os.getpid()

    def touch(self, value: torch.Tensor) -> None:
        """Use a tensor without waiting for it."""
        value += 1

    def die_at(self, name: str, number: int, drains: bool) -> None:
        """Die at the n-th call of a kind from now on.

        Args:
            name: Of the driver.
            number: Counts from 1.
            drains: Whether all that the GPU has been given is done by then.
        """
        self.device.synchronize()
        left = number

        def before(called: str) -> None:
            nonlocal left
            left -= called == name
            if not left:
                if drains:
                    self.device.synchronize()
                os.kill(os.getpid(), signal.SIGKILL)

        self.device.driver.before_call = before

    def reduce_often(self, count: int, lengths: list[int], group: str) -> int:
        """Do eager operations in a row, each with the result of the last; return wrong ones."""
        wrong: list[int] = []
        world_size = collective.get_collective_group_size(group)
        ranks = sum(range(world_size))
        for number in range(count):
            length = lengths[number % len(lengths)]
            value = self.make(length, number % 7)
            expected = ranks + world_size * (number % 7)
            collective.allreduce(value, group)
            self.device.launch(
                lambda value, expected=expected, number=number: (
                    bool((value == expected).all()) or wrong.append(number)
                ),
                value,
            )
        self.device.synchronize()
        return len(wrong)

    def spread_often(self, lengths: list[int], group: str) -> int:
        """Get tensors from rank 0 while the GPU does nothing, and leave; return the wrong ones.

        Rank 0 gets nothing from the others: only their events keep it from being ahead of them. The
        GPU begins when the host has done everything: no host waits for it.
        """
        wrong: list[int] = []
        gate = threading.Event()
        self.device.synchronize()
        self.device.launch(gate.wait)
        for number, length in enumerate(lengths):
            value = self.make(length, self.rank + number)
            collective.broadcast(value, 0, group)
            self.device.launch(
                lambda value, number=number: bool((value == number).all()) or wrong.append(number),
                value,
            )
        collective.destroy_collective_group(group)
        gate.set()
        self.device.synchronize()
        return len(wrong)

    def reduce_on_streams(self, count: int, group: str) -> int:
        """Reduce to rank 0 on two streams in turn, the first of which does nothing for long.

        Nobody reads what rank 0 brings but itself: no event of others says that it has. Another
        device is current meanwhile.
        """
        wrong: list[int] = []
        gate, streams = threading.Event(), (self.device.current, self.device.make_stream())
        self.device.synchronize()
        self.device.launch(gate.wait)
        self.device.driver.select(1)
        ranks = range(collective.get_collective_group_size(group))
        for number in range(count):
            self.device.current = streams[number // 2 % 2]
            value, expected = self.make(1000, number), sum(rank + number for rank in ranks)
            collective.reduce(value, 0, group)
            if not self.rank:
                self.device.launch(
                    lambda value, expected=expected, number=number: (
                        bool((value == expected).all()) or wrong.append(number)
                    ),
                    value,
                )
        self.device.current = streams[0]
        assert self.device.driver.current() == 1
        gate.set()
        self.device.synchronize()
        return len(wrong)

    def play(self, seed: int, count: int, groups: dict[str, list[int]]) -> list[str]:
        """See `tests.cuda.drawn`."""
        return [str(one) for one in Player(self.rank, groups, seed).play(count)]

    def gather_eagerly(self, group: str) -> tuple[list[float], float]:
        """Do an allgather and an average on GPU tensors."""
        size = collective.get_collective_group_size(group)
        parts = [self.device.new(("float32", (2,))) for _ in range(size)]
        collective.allgather(parts, self.make(2), group)
        mean = self.make(3)
        collective.allreduce(mean, group, ReduceOp.AVG)
        self.device.synchronize()
        return [float(part[1]) for part in parts], float(mean[0])

    def meet(self, size: int, group: str, backend: str = "auto") -> str:
        """Join a group by name; return what its handle says."""
        collective.init_collective_group(size, self.rank, backend, group)
        return str(find_member(group))


def begin(monkeypatch, count=3, num_gpus=1, settings=""):
    """Start a session on a machine with so many GPUs, and ranks in it."""
    monkeypatch.setenv("COMPILED_DAG_CUDA", "tests.cuda.fake:open_ordered_device")
    monkeypatch.setenv(SETTINGS, settings)
    monkeypatch.setattr(gpus, "count_devices", lambda: num_gpus)
    runtime.init(num_gpus=count or 1)
    kind = runtime.remote(GpuRank).options(num_gpus=1)
    return [kind.remote(rank) for rank in range(count)]
