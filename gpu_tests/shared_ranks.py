"""Ranks of collectives on one GPU: imported by their processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

import collective
from gpu_tests.crew import DEVICE, busy

DTYPES = [
    *("float32", "float64", "float16", "bfloat16", "complex64"),
    *("int8", "uint8", "int16", "int32", "int64", "bool"),
]


class GpuRank:
    """One rank; nothing here waits for the GPU but `show`, `profiled`, and where others end."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.wrong = torch.zeros((), dtype=torch.int64, device=DEVICE)

    def make(self, shape: tuple[int, ...], dtype: str = "float32") -> torch.Tensor:
        """Return small numbers, other ones on every rank, on the GPU only in a while."""
        busy(1)
        return brought(self.rank, shape, dtype).to(DEVICE)

    def show(self, value: torch.Tensor) -> torch.Tensor:
        return value.cpu()

    def touch(self, value: torch.Tensor) -> None:
        value += 1

    def reduce_often(self, count: int, lengths: list[int], group: str) -> int:
        """Do eager operations in a row; return how many elements were wrong."""
        size = collective.get_collective_group_size(group)
        self.wrong.zero_()
        for number in range(count):
            value = torch.full(
                (lengths[number % len(lengths)],), float(self.rank + number % 7), device=DEVICE
            )
            collective.allreduce(value, group)
            self.wrong += (value != sum(range(size)) + size * (number % 7)).sum()
        return int(self.wrong)

    def reduce_aside(self, count: int, group: str) -> int:
        """Do that on a stream of its own, without waiting for what makes the tensors."""
        size = collective.get_collective_group_size(group)
        self.wrong.zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(count):
                busy(1)
                value = torch.full((100_000,), float(self.rank), device=DEVICE)
                collective.allreduce(value, group, async_op=True).wait()
                self.wrong += (value != sum(range(size))).sum()
            return int(self.wrong)

    def profiled(self, count: int, group: str) -> dict[str, int]:
        """Do that under torch's profiler, beside a kernel; return how often each call was made."""
        value = torch.ones(1000, device=DEVICE)
        collective.allreduce(value, group)
        activities = list(torch.profiler.supported_activities())
        with torch.profiler.profile(activities=activities) as profiler:
            busy(20)
            for _ in range(count):
                collective.allreduce(value, group)
        return {event.key: event.count for event in profiler.key_averages()}

    def die(self, value: Any, dies: bool) -> Any:
        """Die with work for the GPU under way, or return the value."""
        if dies:
            busy(50)
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    def die_in_the_next(self) -> None:
        """Die in the next operation: others wait on the GPU for a copy that a kernel holds up."""
        from collective.cuda_group import CudaIpcGroup

        busy(500)

        def run(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        CudaIpcGroup.run = run  # type: ignore[method-assign]

    def works(self) -> bool:
        return float(torch.ones(1000, device=DEVICE).sum()) == 1000


def brought(rank: int, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """Return what a rank brings, in host memory."""
    numbers = torch.arange(torch.Size(shape).numel()) * (rank + 3) % 4 + rank % 3
    return numbers.reshape(shape).to(getattr(torch, dtype))
