"""Measure the floor: the least that a chain of Python processes can do over shared memory.

    driver -> process 1 -> ... -> process k -> driver

Plain forked processes, one slot a hop, no errors, no timeouts per value, no memory that is given
back: a real engine cannot be below it. Memory is one anonymous shared mapping, so nothing has a
name; the processes end with their parent, whatever ends it, and are always reaped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
import traceback
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NoReturn

from benchmarks.rounds import Side, echoing
from benchmarks.slot import SLICE_NS, SLOT_BYTES, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER_LIMIT_S = 10.0
REAP_LIMIT_S = 1.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Echo:
    """Do what the measured actors do, and nothing else."""

    def echo(self, value: object) -> object:
        """Return `value`."""
        return value


@contextmanager
def chain(stages: int) -> Iterator[Side]:
    """Run `stages` echoing processes in a row; a trip sends an int through all of them.

    Fork before the process has threads: open this side before any other.
    """
    with (
        mmap.mmap(-1, SLOT_BYTES * (stages + 1)) as memory,
        closing(Slot(memory, 0, _give_up)) as first,
        closing(Slot(memory, stages, _give_up)) as last,
        _stages(memory, stages),
    ):
        yield echoing("floor", _trip(first, last))
        first.put(None)
        last.take()


@contextmanager
def _stages(memory: mmap.mmap, count: int) -> Iterator[None]:
    pids: list[int] = []
    try:
        pids.extend(_fork_stage(memory, index) for index in range(count))
        yield
    finally:
        _reap(pids)


def _trip(first: Slot, last: Slot) -> Callable[[], object]:
    def trip() -> object:
        first.put(1)
        return last.take()

    return trip


def _fork_stage(memory: mmap.mmap, index: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _stage(memory, index, parent)
    return pid


def _stage(memory: mmap.mmap, index: int, parent: int) -> NoReturn:
    status = 1
    try:
        # The parent ends its stages itself on Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_if_orphan(parent)  # it may have died before prctl
        _echo_forever(memory, index, lambda _slices: _end_if_orphan(parent))
        status = 0
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(status)  # nothing may return into the parent's stack


def _end_if_orphan(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)


def _echo_forever(memory: mmap.mmap, index: int, idle: Callable[[int], None]) -> None:
    source = Slot(memory, index, idle)
    target = Slot(memory, index + 1, idle)
    method = Echo().echo
    while (value := source.take()) is not None:
        target.put(method(value))
    target.put(None)


def _give_up(slices: int) -> None:
    if slices * SLICE_NS > ANSWER_LIMIT_S * 1e9:
        raise TimeoutError(f"the floor's chain has not answered for {ANSWER_LIMIT_S:g} s")


def _reap(pids: list[int]) -> None:
    limit = time.monotonic() + REAP_LIMIT_S
    for pid in pids:
        while not _ended(pid):
            if time.monotonic() > limit:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.001)


def _ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid
