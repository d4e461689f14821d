"""Actors of the GPU tests: imported by their processes.

``GPU_TESTS_DEVICE=cpu`` has the tests that can run on the CPU do so: it shows slips in the tests
themselves, and nothing about GPUs.
"""

from __future__ import annotations

import os
from typing import Any

import torch

DEVICE = os.environ.get("GPU_TESTS_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
_CYCLES_PER_MS = 1_500_000


def busy(milliseconds: float) -> None:
    """Have the current stream be busy; the host goes on."""
    if ON_GPU:
        torch.cuda._sleep(int(milliseconds * _CYCLES_PER_MS))


def loopback(rank: int) -> dict[str, dict[str, str]]:
    """Return a `runtime_env` by which NCCL takes ranks on one GPU for ranks on several hosts.

    They then use the socket transport: correctness only, never speed.
    """
    variables = {
        "NCCL_HOSTID": f"rank{rank}",
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_SHM_DISABLE": "1",
    }
    return {"env_vars": variables}


def waits_in(calls: dict[str, int]) -> dict[str, int]:
    """Return those of a profile's calls in which a host waits for its GPU.

    torch's profiler waits for the GPU itself when it ends: compare with a profile of nothing.
    """
    return {name: count for name, count in calls.items() if "Synchronize" in name}


class Stage:
    """Makes, changes and shows tensors; nothing here waits for the GPU but `check` and `show`."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []
        self.wrong = torch.zeros((), dtype=torch.int64, device=DEVICE)

    def make(self, n: int) -> torch.Tensor:
        return torch.arange(n, dtype=torch.float32, device=DEVICE)

    def make_slowly(self, n: int, milliseconds: float) -> torch.Tensor:
        busy(milliseconds)
        return self.make(n)

    def count_up(self, n: int) -> torch.Tensor:
        """Return the same tensor each time, with 1 more in it; the GPU takes its time."""
        if not hasattr(self, "total_count"):
            self.total_count = torch.zeros(n, dtype=torch.int32, device=DEVICE)
        busy(2)
        self.total_count += 1
        return self.total_count

    def make_two(self, n: int) -> Any:
        busy(1)
        return self.make(n), self.make(n + 1).half()

    def put_away(self, value: torch.Tensor) -> None:
        """Keep it as it comes, and wait for nothing."""
        self.kept.append(value)

    def make_many(self, n: int) -> Any:
        return {"a": [self.make(n), "text"], "b": (self.make(n + 1).t(), n), "cpu": torch.ones(3)}

    def add(self, value: torch.Tensor) -> torch.Tensor:
        return value + 1

    def add_slowly(self, value: torch.Tensor, milliseconds: float) -> torch.Tensor:
        busy(milliseconds)
        return value + 1

    def total(self, value: torch.Tensor) -> float:
        """Wait for the GPU, in CUDA: nothing but the end of its work ends that."""
        return float(value.sum())

    def mix(self, value: torch.Tensor) -> torch.Tensor:
        """Do what libraries do, and count how often this ran."""
        self.runs = getattr(self, "runs", 0) + 1
        weights = torch.ones(value.numel(), value.numel(), device=DEVICE) / value.numel()
        return torch.relu(weights @ value) + value.softmax(0)

    def mix_and_look(self, value: torch.Tensor) -> torch.Tensor:
        """Do what cannot be captured."""
        self.runs = getattr(self, "runs", 0) + 1
        return value * float(value.max())

    def count(self) -> int:
        return self.runs

    def keep(self, value: torch.Tensor) -> None:
        self.kept.append(value)
        value += 100

    def same(self, value: Any) -> Any:
        return value

    def keep_last(self, value: torch.Tensor) -> torch.Tensor:
        self.kept.append(value[-2:])
        return value + 1

    def learn(self, value: torch.Tensor) -> float:
        """Go back through what autograd saved in the call before; return the gradient."""
        weight = torch.ones((), device=DEVICE, requires_grad=True)
        before, self.before = getattr(self, "before", None), (weight, (weight * value.sin()).sum())
        if before is None:
            return 0.0
        before[1].backward()
        return float(before[0].grad)

    def check(self, value: torch.Tensor) -> None:
        """Count what is wrong in a value of `make`, on the GPU."""
        expected = torch.arange(value.numel(), dtype=torch.float32, device=DEVICE)
        self.wrong += (value != expected).sum()

    def check_slowly(self, value: torch.Tensor, milliseconds: float) -> None:
        busy(milliseconds)
        self.check(value)

    def num_wrong(self) -> int:
        return int(self.wrong)

    def show(self, value: Any) -> Any:
        return shown(value)

    def show_kept(self) -> Any:
        return shown(self.kept)

    def works(self) -> bool:
        """Tell whether this process's GPU can be used."""
        return float(torch.ones(1000, device=DEVICE).sum()) == 1000

    def pid(self) -> int:
        return os.getpid()

    def break_context(self, value: Any) -> Any:
        """Fail a device-side assertion, which no context survives; the host sees it later."""
        wrong = torch.tensor([10_000], device=DEVICE)
        return torch.zeros(4, device=DEVICE)[wrong] + value.sum()

    def fill_gpu(self, value: Any) -> Any:
        return torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)

    def profile(self) -> None:
        """Begin to trace the CUDA calls of this process."""
        every = list(torch.profiler.supported_activities())
        self.profiler = torch.profiler.profile(activities=every)
        self.profiler.__enter__()

    def calls(self) -> dict[str, int]:
        """End that; return how often each call was made."""
        self.profiler.__exit__(None, None, None)
        return {event.key: event.count for event in self.profiler.key_averages()}

    def allocator(self) -> str:
        return str(torch.cuda.get_allocator_backend())


class Captured:
    """A stage whose work is a CUDA graph: captured once, replayed, between channel operations."""

    def __init__(self, n: int) -> None:
        self.input = torch.zeros(n, device=DEVICE)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                self.output = self.input * 2 + 1
        side.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = self.input * 2 + 1

    def work(self, value: torch.Tensor) -> torch.Tensor:
        self.input.copy_(value)
        self.graph.replay()
        return self.output


def shown(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.device.type, value.tolist())
    if isinstance(value, dict):
        return {key: shown(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(part) for part in value]
    return value
