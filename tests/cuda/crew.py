"""Actors with a GPU in host memory: imported by their processes."""

from __future__ import annotations

import os
import threading
from typing import Any, Final

import torch

from compiled_dag.cuda.device import open_device
from tests.cuda import nccl

UNSENDABLE: Final = 13


class Stage:
    """Makes, changes and shows tensors of its GPU; nothing here waits for it but `show`."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.runs = 0

    def make(self, n: int) -> Any:
        device = open_device()
        made = device.new(("int32", (n,)))
        device.launch(lambda made: made.copy_(torch.arange(n, dtype=torch.int32)), made)
        return made

    def make_never(self, n: int) -> Any:
        """Return what the GPU never comes to make."""
        open_device().launch(threading.Event().wait)
        return self.make(n)

    def wait_for(self, value: Any) -> int:
        """Wait for the GPU where nothing but the end of its work ends that; return how many."""
        open_device().synchronize()
        return int(value.numel())

    def use_never(self, value: Any) -> int:
        """Have the GPU never come to use it."""
        open_device().launch(threading.Event().wait)
        return int(value.numel())

    def make_and_wait(self, n: int) -> Any:
        """Make numbers, when the GPU has done all that came before."""
        open_device().synchronize()
        return self.make(n)

    def make_many(self, n: int) -> Any:
        return {"a": [self.make(n), "text"], "b": (self.make(n + 1), n), "cpu": torch.ones(3)}

    def make_two(self, n: int) -> Any:
        """Return two values, of which the second may be what cannot be sent."""
        if n < 0:
            raise ValueError(f"no {n} numbers")
        return self.make(n), threading.Lock() if n == UNSENDABLE else [self.make(n + 1), n]

    def host_numbers(self, n: int, dies: bool = False) -> Any:
        if dies:
            os._exit(3)
        return torch.arange(n, dtype=torch.int32)

    def keep_host(self, value: Any) -> Any:
        value += 1
        return self.show(value)

    def add(self, value: Any, number: int = 1) -> Any:
        device = open_device()
        made = device.new(("int32", tuple(value.shape)))
        device.launch(lambda value, made: torch.add(value, number, out=made), value, made)
        return made

    def add_counted(self, value: Any, number: int = 1) -> Any:
        """Add, and count how often this ran."""
        self.runs += 1
        return self.add(value, number)

    def add_and_look(self, value: Any) -> Any:
        """Do what cannot be recorded."""
        self.runs += 1
        open_device().synchronize()
        return self.add(value)

    def count(self) -> int:
        return self.runs

    def count_up(self, n: int) -> Any:
        """Return the same tensor each time, with 1 more in it; the GPU takes its time."""
        device = open_device()
        if not hasattr(self, "total"):
            self.total = device.from_host(bytes(n)).view(torch.int8)
        device.launch(lambda total: total.add_(1), self.total)
        return self.total

    def keep(self, value: Any) -> Any:
        """Keep it, and change it: it is this actor's own."""
        self.kept.append(value)
        open_device().launch(lambda value: value.add_(100), value)
        return value

    def put_away(self, value: Any) -> None:
        """Keep it as it comes, and wait for nothing."""
        self.kept.append(value)

    def same(self, value: Any) -> Any:
        return value

    def parts(self, value: Any) -> Any:
        return {"all": value, "last": [value[-2:]]}

    def join(self, value: Any, parts: Any) -> Any:
        return self.add(value, 1), self.add(parts["all"], 2), parts

    def keep_last(self, value: Any) -> Any:
        self.kept.append(value[-2:])
        return self.add(value)

    def drop_kept(self) -> None:
        self.kept.clear()

    def fail(self, value: Any) -> Any:
        raise KeyError("told to")

    def operations(self) -> int:
        """Return how often NCCL was asked to send or receive something."""
        return nccl.operations

    def pid(self) -> int:
        return os.getpid()

    def work(self, value: Any, dies: bool) -> Any:
        """Add, or make, or die before that."""
        if dies:
            os._exit(3)
        return self.make(value) if isinstance(value, int) else self.add(value)

    def show(self, value: Any) -> Any:
        device = open_device()
        device.synchronize()
        return _shown(device, value)

    def settle(self, value: Any) -> Any:
        """Return what it is, in host memory."""
        device = open_device()
        device.synchronize()
        return value.clone().float()

    def tell(self, value: Any) -> Any:
        return value.tolist()

    def show_kept(self) -> Any:
        return self.show(self.kept)

    def memory(self) -> int:
        """Return the bytes of GPU memory that rings take."""
        device = open_device()
        return device.settings.memory - device.driver.free_bytes()


class Elsewhere(Stage):
    """Has two GPUs, and makes the second one current."""

    def __init__(self) -> None:
        super().__init__()
        open_device().driver.select(1)


def _shown(device: Any, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ("gpu" if device.holds(value) else "cpu", value.tolist())
    if isinstance(value, dict):
        return {key: _shown(device, part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(device, part) for part in value]
    return value
