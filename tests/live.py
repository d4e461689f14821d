"""What tests of whole graphs share: actors that fail on demand, and drivers of their own.

An actor fails at a point that is part of the input (`Order`), so no test has to guess when.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import runtime
from compiled_dag import InputNode
from compiled_dag.errors import GraphActorDiedError
from tests.runtime.actors import wait_until_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compiled_dag import CompiledDAG
    from compiled_dag.node import DAGNode

ROOT = Path(__file__).parents[1]
LONG_S = 30.0
"""Bounds waits that end at once unless something hangs."""
POLL_S = 0.005


# --- actors ---------------------------------------------------------------------------------------


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


def obey(order: Order) -> Any:  # noqa: C901  one line per order
    match order.what:
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sigsegv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "sys_exit":
            sys.exit(5)
        case "interrupt":
            raise KeyboardInterrupt
        case "die_pickling":
            return [bytes(1 << 20), Deadly()]
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hold_gil":
            ctypes.PyDLL(None).sleep(1000)
        case "wait":
            wait_for_file(order.path)
        case "raise":
            raise ValueError(f"actor {order.at} was told to")
        case "raise_locked":
            raise Locked(f"actor {order.at} was told to")
        case "raise_two_arguments":
            raise TwoArguments("told", "to")
        case "return_lock":
            return {"deep": [threading.Lock()]}
        case "return_fragile":
            return Fragile()
        case _:
            raise AssertionError(order)
    return order.what


def wait_for_file(path: str) -> None:
    """Wait, in an actor, for something that the test decides."""
    while not Path(path).exists():
        time.sleep(POLL_S)


@runtime.remote
class Worker:
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

    def hold(self, value):
        self.held.append(value)
        return value

    def held_sums(self):
        return [float(value.sum()) for value in self.held]

    def forget(self):
        self.held.clear()

    def grad(self, value, size=1000):
        import torch

        if isinstance(value, Order) and value.at == self.number:
            obey(value)
        return torch.full((size,), float(self.number))

    def total(self, tensor):
        return float(tensor[0] + tensor[-1])

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
        """Have the process die with the next message in front of it."""
        from compiled_dag.channel.reader import Reader

        Reader.peek = lambda _: os.kill(os.getpid(), signal.SIGKILL)

    def die_in_gloo(self):
        """Have the next operation be launched, and never finished."""
        from collective.torch_group import GlooGroup

        launch = GlooGroup.allreduce

        def launch_and_die(group, tensor, op):
            launch(group, tensor, op)
            time.sleep(0.005)  # some of it is sent
            os.kill(os.getpid(), signal.SIGKILL)

        GlooGroup.allreduce = launch_and_die

    def fail_in_gloo(self):
        """Have the backend fail on this rank, once, with everybody alive."""
        from collective.torch_group import GlooGroup

        launch = GlooGroup.allreduce

        def fail(group, tensor, op):
            GlooGroup.allreduce = launch
            raise RuntimeError("connection reset")

        GlooGroup.allreduce = fail

    def wait(self, path):
        wait_for_file(path)

    def memory_files(self):
        """Return how many descriptors of shared memory this process has."""
        gc.collect()
        links = (os.readlink(entry) for entry in map(str, Path("/proc/self/fd").iterdir())
                 if os.path.lexists(entry))  # fmt: skip
        return sum("memfd:" in link for link in links)


def make(count: int) -> list[Any]:
    """Start workers numbered from 1."""
    return [Worker.remote(number) for number in range(1, count + 1)]


def chain(workers: Sequence[Any]) -> DAGNode:
    """Draw a graph that turns ``n`` into ``n123``."""
    with InputNode() as inp:
        node: Any = inp
        for worker in workers:
            node = worker.work.bind(node)
    return node


def pids_of(workers: Sequence[Any]) -> list[int]:
    return runtime.get([worker.pid.remote() for worker in workers], timeout=LONG_S)


def died(ref: Any) -> GraphActorDiedError:
    """Return the error that getting `ref` raises."""
    with pytest.raises(GraphActorDiedError) as caught:
        ref.get(timeout=LONG_S)
    return caught.value


def wait_until(condition: Callable[[], object], timeout_s: float = LONG_S) -> None:
    """Wait for something nobody announces."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        pause.wait(POLL_S)


def where(dag: CompiledDAG) -> dict[str, str]:
    """Return what each actor of a graph is doing, by label."""
    lines = dag._deployment.report().splitlines()
    return dict(line.strip().split(": ", 1) for line in lines)


# --- drivers of their own -------------------------------------------------------------------------

HEAD = """
import os, signal, sys, threading, time
import runtime
from compiled_dag import DAGContext, InputNode, MultiOutputNode
from tests.live import Order, Worker, chain, make, pids_of
"""


class Driver:
    """A script in a process group of its own; what it prints is read line by line."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.output = ""
        self.errors = ""
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.errors += line

    def line(self) -> str:
        """Return the next line that it prints, without its end."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.output += line
        assert line, f"the driver ended with {self.wait()}:\n{self.errors}"
        return line.rstrip("\n")

    def interrupt(self) -> None:
        """Do what Ctrl-C does: SIGINT for the terminal's foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process.stdout is not None
        self.output += self._process.stdout.read()
        self._reader.join(LONG_S)
        return self._process.wait(LONG_S)

    def wait_until_asleep(self) -> None:
        """Wait until its main thread blocks (and has stayed so for a while)."""
        quiet = [0]

        def asleep() -> bool:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            quiet[0] = quiet[0] + 1 if stat[stat.rindex(")") + 2] == "S" else 0
            return quiet[0] >= 20

        wait_until(asleep)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(LONG_S)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def driver(body: str, *arguments: str) -> Iterator[Driver]:
    """Run a driver whose script is `HEAD` and `body`."""
    with running([sys.executable, "-c", HEAD + body, *arguments]) as started:
        yield started


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[Driver]:
    """Run a program."""
    started = Driver(arguments)
    try:
        yield started
    finally:
        started.close()


def end_all(pids: Sequence[int], timeout_s: float) -> list[int]:
    """Wait for processes to end, then kill the others; returns those."""
    left = wait_until_dead(pids, timeout_s)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left
