"""The case `hog`: a chain's round trip while a process that never gives way is on every core."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING, NoReturn

from benchmarks import floor, ours, pipe
from benchmarks.catalog import find
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import Measured, compare, interleave, started
from benchmarks.stats import paired_ratios

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1


@case(
    full=Plan(actors=(1, 4), rounds=10, trips=1000),
    quick=Plan(actors=(1, 4), rounds=3, trips=200),
    limit_s=240.0,
)
def hog(config: Config) -> Iterator[Row]:
    """Round trip of an int under a CPU hog on every core, beside plain pipes of the same length."""
    work = f"chain {config.actors}"
    with ExitStack() as stack:
        below = stack.enter_context(floor.running(floor.chain(config.actors)))
        pipes = stack.enter_context(pipe.ping_pong(config.actors, name="pipe", pinned=False))
        stack.enter_context(ours.session())
        mine = stack.enter_context(ours.side(find(work, config.trips)))
        other = stack.enter_context(started(config.open_peer(work)))
        sides = [mine, pipes, below, other.side]
        interleave([mine, pipes, below], 1, config.trips)  # until the actors have settled
        stack.enter_context(on_every_core())
        measured = interleave(sides, config.rounds, config.trips)
        yield compare(measured) | _tails(measured) | other.failure


def _tails(measured: Measured) -> Row:
    """Compare the 99th percentiles of ours and the pipe's, round by round; count who waits."""
    ours_p99, pipe_p99 = (
        [block.p99_ns for block in measured.blocks[name]] for name in ("ours", "pipe")
    )
    row: Row = {"pipe_p99_ratio": round(median(paired_ratios(ours_p99, pipe_p99)), 2)}
    for name, blocks in measured.blocks.items():
        if num_long := sum(block.num_long for block in blocks):
            row[f"{name}_waits_one_in"] = round(sum(block.n for block in blocks) / num_long)
    return row


@contextmanager
def on_every_core() -> Iterator[None]:
    """Keep every core busy, with one process each."""
    pids = [_fork(core) for core in sorted(os.sched_getaffinity(0))]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _fork(core: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _burn(core, parent)
    return pid


def _burn(core: int, parent: int) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {core})
        while os.getppid() == parent:
            for _ in range(1_000_000):
                pass
    finally:
        os._exit(0)  # nothing may return into the parent's stack
