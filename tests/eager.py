"""Actors that use eager collectives. Every actor imports this file: nothing slow, no pytest."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch

import collective
import runtime


@runtime.remote
class Member:
    """One rank; what it does is told by the call."""

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank

    def join(self, world_size: int, **options: Any) -> tuple[int, int]:
        collective.init_collective_group(world_size, self.rank, **options)
        name = options.get("group_name", "default")
        return collective.get_rank(name), collective.get_collective_group_size(name)

    def facts(self, name: str = "default") -> tuple[bool, int, int]:
        size = collective.get_collective_group_size(name)
        return collective.is_group_initialized(name), collective.get_rank(name), size

    def destroy(self, name: str = "default") -> None:
        collective.destroy_collective_group(name)

    def total(self, name: str = "default", value: float = 1.0) -> float:
        """Return the sum of all ranks' values."""
        tensor = torch.full((3,), value)
        collective.allreduce(tensor, name)
        return float(tensor[0])

    def bring(self, name: str, elements: int, dtype: str) -> float:
        """Return the sum of so many ones of every rank."""
        tensor = torch.ones(elements, dtype=getattr(torch, dtype))
        collective.allreduce(tensor, name)
        return float(tensor[-1])

    def die_when_gloo_is_done(self, name: str) -> None:
        """Take part in an operation, and die instead of meeting the others at its end."""
        from collective.meetings import Meetings

        def die(_meetings: Meetings) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        Meetings.meet = die  # type: ignore[method-assign]
        self.total(name)

    def long(self, name: str = "default", operation: str = "allreduce") -> int:
        """Do large operations until one fails."""
        tensor, count = torch.zeros(1 << 23), 0
        size = collective.get_collective_group_size(name)
        parts = [torch.zeros(1 << 22) for _ in range(2 * size)]
        while True:
            match operation:
                case "allreduce":
                    collective.allreduce(tensor, name)
                case "reducescatter":
                    collective.reducescatter(parts[0], parts[size:], name)
                case "all_to_all":
                    collective.all_to_all(parts[:size], parts[size:], name)
            count += 1

    def from_threads(self, name: str = "default", count: int = 4) -> list[float]:
        """Return sums, each of operations of a thread."""
        sums = [torch.ones(1) for _ in range(count)]

        def run(number: int) -> None:
            for _ in range(20):
                collective.allreduce(sums[number], name)
                sums[number] /= collective.get_collective_group_size(name)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [float(one) for one in sums]

    def in_fork(self, name: str = "default") -> str:
        """Return what an operation in a forked child raises."""
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                collective.barrier(name)
                text = "nothing"
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"
            os.write(write, text.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as file:
            text = file.read()
        os.waitpid(pid, 0)
        return text

    def pid(self) -> int:
        return os.getpid()

    def make(self, count: int) -> float:
        """Make actors, a group of them, and use it."""
        others = [Member.remote(rank) for rank in range(count)]
        group = collective.create_collective_group(others, "gloo", "inner")
        (found,) = collective.get_collective_groups(others)
        assert found == group
        total = sum(runtime.get([one.total.remote("inner") for one in others]))
        collective.destroy_collective_group(group)
        return total

    def make_of(self, others: list[Any]) -> str:
        return collective.create_collective_group(others, "gloo", timeout_s=1.0).name

    def wait_for(self, other: Any) -> float:
        """Wait for a call of another rank, which waits for this one."""
        return float(runtime.get(other.total.remote()))

    def be_busy_until(self, path: str) -> str:
        """Wait for a file."""
        pause = threading.Event()
        while not Path(path).exists():
            pause.wait(0.005)
        return "done"
