"""What tests of whole graphs share: chains of actors, and drivers of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import runtime
from collective import allreduce
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.errors import GraphActorDiedError
from runtime import lifecycle
from tests.crew import POLL_S, Rank, Worker
from tests.runtime.actors import wait_until_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compiled_dag import CompiledDAG
    from compiled_dag.node import DAGNode

ROOT = Path(__file__).parents[1]
LONG_S = 60.0
"""Bounds waits that end at once unless something hangs."""


def make(count: int, kind: Any = Worker) -> list[Any]:
    """Start actors numbered from 1."""
    return [kind.remote(number) for number in range(1, count + 1)]


def make_ranks(count: int) -> list[Any]:
    """Start actors that take part in collectives."""
    await_zygotes()  # actors made before would import torch, each for itself
    return make(count, Rank)


def await_zygotes() -> None:
    """Wait until both zygotes are there, as if torch were used: the second takes a second."""
    zygotes = lifecycle.current().zygotes
    zygotes.want_torch()
    wait_until(lambda: len(zygotes.pids()) == 2)


def chain(workers: Sequence[Any]) -> DAGNode:
    """Draw a graph that turns ``n`` into ``n123``."""
    with InputNode() as inp:
        node: Any = inp
        for worker in workers:
            node = worker.work.bind(node)
    return node


def reduce(ranks: Sequence[Any], *arguments: Any, transport: str | None = None) -> DAGNode:
    """Draw a graph whose every output is twice the sum of the ranks' numbers."""
    with InputNode() as inp:
        brought = [rank.grad.bind(inp, *arguments) for rank in ranks]
        sums = allreduce.bind(brought, transport=transport)
        totals = [rank.total.bind(part) for rank, part in zip(ranks, sums, strict=True)]
        return MultiOutputNode(totals)


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


def is_in_a_call(actor: Any) -> bool:
    """Tell whether an actor runs an ordinary call."""
    id_ = actor._runtime_process.actor_id
    seen = lifecycle.current().activities([id_], time.monotonic() + LONG_S, stacks=False)
    return bool(seen[id_].call)


def where(dag: CompiledDAG) -> dict[str, str]:
    """Return what each actor of a graph is doing, by label."""
    report = dag._deployment.observer.report(stacks=False)
    return {
        actor.label: f"execution {actor.execution}: {actor.text}" if actor.begun
        else "between executions"
        for actor in report.actors
    }  # fmt: skip


def in_fork(function: Callable[[], object]) -> str:
    """Return what `function` returns or raises in a forked child, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


# --- drivers of their own -------------------------------------------------------------------------

HANG_S = 240
"""After that a driver shows where its threads are: its test is about to time out."""

HEAD = f"""
import faulthandler, os, signal, sys, threading, time
faulthandler.dump_traceback_later({HANG_S})
import runtime
from compiled_dag import DAGContext, InputNode, MultiOutputNode
from tests.crew import Order, Worker
from tests.live import await_zygotes, chain, make, make_ranks, pids_of, wait_until, where
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

    def goes_on_after_an_interrupt(self) -> None:
        """Interrupt what it waits in, and see it say so and go on."""
        assert self.line() == "ready"
        self.wait_until_asleep()
        self.interrupt()
        assert self.line() == "interrupted"
        assert self.line() == "went on"

    def ends_well(self) -> None:
        """Wait for its end without an error, and without a word of one."""
        assert self.wait() == 0, self.errors
        assert self.errors == ""

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
            state = stat[stat.rindex(")") + 2]
            assert state != "Z", f"the driver has ended:\n{self.errors}"
            quiet[0] = quiet[0] + 1 if state == "S" else 0
            return quiet[0] >= 20

        wait_until(asleep)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(LONG_S)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        sys.stderr.write(self.errors)  # shown if the test fails


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
