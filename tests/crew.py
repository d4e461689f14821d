"""Actors that fail on demand. Every actor imports this file: nothing slow, no pytest.

An actor fails at a point that is part of the input (`Order`), so no test has to guess when.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.005


@dataclass(frozen=True)
class Order:
    """An input: the actor of number `at` does `what`, the others pass the input on."""

    at: int
    what: str
    path: str = ""


class Deadly:
    """A value that kills the process that pickles it."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        return Deadly, ()


class Locked(Exception):  # noqa: N818  its name is not what is tested
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class TwoArguments(Exception):  # noqa: N818  its name is not what is tested
    """Can be pickled, but not rebuilt: pickle passes `args`, which has one item."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Fragile:
    """A value that cannot be rebuilt in the processes that refuse it."""

    def __reduce__(self) -> Any:
        return make_fragile, ()


def make_fragile() -> Fragile:
    if "REFUSE_FRAGILE" in os.environ:
        raise LookupError("refused here")
    return Fragile()


def obey(order: Order) -> Any:
    """Do as told; what returns, returns `what` or the value that is asked for."""
    result = DEEDS[order.what](order)
    return order.what if result is None else result


def _raise(error: BaseException) -> Any:
    raise error


DEEDS: dict[str, Callable[[Order], Any]] = {
    "sigkill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(3),
    "sys_exit": lambda _: sys.exit(5),
    "interrupt": lambda _: _raise(KeyboardInterrupt()),
    "die_pickling": lambda _: [bytes(1 << 20), Deadly()],
    "stop": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "hold_gil": lambda _: hold_gil(),
    "search": lambda _: re.match(r"(a+)+$", "a" * 64 + "b"),
    "wait": lambda order: wait_for_file(order.path),
    "raise": lambda order: _raise(ValueError(f"actor {order.at} was told to")),
    "raise_locked": lambda order: _raise(Locked(f"actor {order.at} was told to")),
    "raise_two_arguments": lambda _: _raise(TwoArguments("told", "to")),
    "return_lock": lambda _: {"deep": [threading.Lock()]},
    "return_fragile": lambda _: Fragile(),
}


def hold_gil() -> None:
    """Wait in C, with the GIL, for what never comes; a signal does not end it."""
    read, _write = os.pipe()
    ctypes.PyDLL(None).read(read, ctypes.create_string_buffer(1), 1)


def wait_for_file(path: Path | str) -> None:
    """Wait, in an actor, for something that the test decides."""
    while not Path(path).exists():
        time.sleep(POLL_S)


def footprint() -> tuple[int, int, int, int]:
    """Return descriptors, threads, mappings of shared memory and resident KiB of this process."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return (
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208  names only
        int(fields["Threads"]),
        Path("/proc/self/maps").read_text().count("memfd:"),
        int(fields["VmRSS"].split()[0]),
    )


def extremes(arrays: list[Any]) -> list[tuple[float, float]]:
    """Return what shows that arrays full of one number still are what they were."""
    return [(float(array.min()), float(array.max())) for array in arrays]


class Member:
    """One place of a chain: ``work`` appends the actor's digit to a number."""

    def __init__(self, number: int = 0, path: str = "") -> None:
        if path:
            wait_for_file(path)
        self.number = number
        self.held: list[Any] = []

    def work(self, value):
        if isinstance(value, Order):
            return obey(value) if value.at == self.number else value
        return value if isinstance(value, str) else value * 10 + self.number

    def pair(self, value):
        return (value,) if value == "one" else (value, self.number)

    def both(self, left, right):
        return left, right

    def hold(self, value):
        self.held.append(value)
        return value

    def held_values(self):
        return extremes(self.held)

    # --- by ordinary calls

    def pid(self):
        return os.getpid()

    def refuse_fragile(self):
        os.environ["REFUSE_FRAGILE"] = "1"

    def die_before_publishing(self):
        """Have the next message be written, and never shown."""
        from compiled_dag.channel.writer import Writer

        Writer.publish = lambda _: os.kill(os.getpid(), signal.SIGKILL)

    def die_reading(self):
        """Have the process die in the middle of the next array that it reads."""
        from compiled_dag.channel.reader import Reader

        Reader._decode = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    def fork_and_drop(self, count):
        """Fork children that drop every array and end."""
        for _ in range(count):
            pid = os.fork()
            if not pid:
                self.held.clear()
                gc.collect()
                os._exit(0)
            os.waitpid(pid, 0)

    def wait(self, path):
        wait_for_file(path)

    def footprint(self):
        gc.collect()
        return footprint()

    def memory_files(self):
        """Return how many descriptors of shared memory this process has."""
        gc.collect()
        links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir()
                 if entry.is_symlink()]  # fmt: skip
        return sum("memfd:" in link for link in links)


@runtime.remote
class Worker(Member):
    """Starts at once: without the word that makes an actor wait for the zygote of that library."""


@runtime.remote
class Rank(Member):
    """A member that takes part in collectives."""

    def grad(self, value, size=1000):
        import torch

        tensor = torch.full((size,), float(self.number))
        if isinstance(value, Order) and value.at == self.number:
            if value.what == "shape":
                return tensor[:-1]
            if value.what == "dtype":
                return tensor.double()
            obey(value)
        return tensor

    def total(self, tensor):
        return float(tensor[0] + tensor[-1])

    def die_in_gloo(self):
        """Have the next operation be launched, and never finished."""
        from collective.torch_group import GlooGroup

        launch = GlooGroup.run

        def launch_and_die(group, *args, **kwargs):
            launch(group, *args, **kwargs)
            time.sleep(0.005)  # some of it is sent
            os.kill(os.getpid(), signal.SIGKILL)

        GlooGroup.run = launch_and_die

    def die_at_meeting(self, number):
        """Die instead of coming to that meeting: of a piece in shm, of the end in gloo."""
        from collective.meetings import Meetings

        meet, countdown = Meetings.meet, iter(range(number, 0, -1))

        def meet_or_die(meetings):
            if next(countdown) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            meet(meetings)

        Meetings.meet = meet_or_die

    def fail_in(self, backend):
        """Have the backend fail on this rank, once, with everybody alive."""
        from collective.shm_group import SharedMemoryGroup
        from collective.torch_group import GlooGroup

        kind = {"gloo": GlooGroup, "shm": SharedMemoryGroup}[backend]
        launch = kind.run

        def fail(group, *_, **__):
            kind.run = launch
            raise RuntimeError("connection reset")

        kind.run = fail


class Rows:
    """A dataset over arrays that somebody holds: its workers inherit them, and let go of them."""

    def __init__(self, arrays: list[Any]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> float:
        array = self.arrays[index % len(self.arrays)]
        return float(array[index] + array[-1])


def load(arrays: list[Any]) -> Any:
    """Start to iterate over `Rows` with two forked workers, two rows at a time."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        Rows(arrays), batch_size=2, num_workers=2, multiprocessing_context="fork"
    )
    return iter(loader)


@runtime.remote
class Feeder:
    """Holds every array it is given, and iterates a DataLoader over the first three."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.batches: Any = None

    def feed(self, array):
        self.held.append(array)
        if len(self.held) < 3:
            return None
        if self.batches is None:
            self.batches = load(self.held[:3])
        return next(self.batches).tolist()

    def held_values(self):
        return extremes(self.held)

    def pids(self):
        workers = [] if self.batches is None else self.batches._workers
        return [os.getpid(), *(worker.pid for worker in workers)]

    def stop(self):
        self.batches = None


@runtime.remote
class Trainer:
    """One rank of data-parallel training: a small network in float64, and its optimiser."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.model = Model()
        self.rank = rank
        self.world_size = world_size

    def backward(self, rows, order):
        """Return this rank's share of the gradient; `order.at` is a rank."""
        gradient = self.model.backward(rows[self.rank :: self.world_size], self.world_size, rows)
        if order is None or order.at != self.rank:
            return gradient
        match order.what:
            case "shape":
                return gradient[:-1]
            case "dtype":
                return gradient.float()
            case "array":
                return gradient.numpy()
            case "autograd":
                return self.model.fail(rows)
        return obey(order)

    def step(self, gradient):
        return self.model.step(gradient)

    def parameters(self):
        return self.model.parameters()

    def pid(self):
        return os.getpid()


class Model:
    """A network of 25 parameters, its optimiser, and one training step in two halves."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1, bias=False)
        ).double()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9)

    def backward(self, shard, world_size, rows):
        """Return a gradient whose mean over all ranks is that of the mean loss over `rows`."""
        import torch

        self.optimizer.zero_grad(set_to_none=False)
        inputs = torch.tensor(shard)
        losses = (self.network(inputs)[:, 0] - inputs.prod(1)).square()
        (losses.sum() * world_size / len(rows)).backward()
        return torch.cat([p.grad.reshape(-1) for p in self.network.parameters()])

    def fail(self, rows):
        import torch

        class Failing(torch.autograd.Function):
            @staticmethod
            def forward(_ctx, value):
                return value.clone()

            @staticmethod
            def backward(_ctx, _gradient):
                raise ArithmeticError("no gradient here")

        Failing.apply(self.network(torch.tensor(rows))).sum().backward()

    def step(self, gradient):
        start = 0
        for parameter in self.network.parameters():
            end = start + parameter.numel()
            parameter.grad = gradient[start:end].reshape(parameter.shape)
            start = end
        self.optimizer.step()
        return float(gradient.norm())

    def parameters(self):
        import torch

        return torch.cat([p.detach().reshape(-1) for p in self.network.parameters()]).numpy()
