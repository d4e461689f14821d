"""Measure the floor: the least that Python processes can do over shared memory.

    driver -> process 1 -> ... -> process k -> driver        (or any other shape)

Plain forked processes, one slot a value, no errors, no timeouts per value, no memory that is given
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
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from benchmarks.rounds import Side, checked, timed
from benchmarks.slot import SLICE_NS, SLOT_BYTES, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ANSWER_LIMIT_S = 10.0
REAP_LIMIT_S = 1.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def echo(value: object) -> object:
    """Do what the measured actors do, and nothing else."""
    return value


def join(*values: object) -> object:
    """Return the first of several values."""
    return values[0]


class Stage(NamedTuple):
    """One process: it waits for a value in every source and puts what it makes into its target."""

    sources: tuple[int, ...]
    """Numbers of slots; the driver writes slot 0."""
    target: int
    method: Callable[..., Any] = echo


def chain(length: int) -> tuple[Stage, ...]:
    """Return echoing stages in a row."""
    return tuple(Stage((index,), index + 1) for index in range(length))


def fan_out(width: int, method: Callable[..., Any] = echo) -> tuple[Stage, ...]:
    """Return stages side by side, which all read the driver's one slot."""
    return tuple(Stage((0,), index + 1, method) for index in range(width))


def fan_in(width: int) -> tuple[Stage, ...]:
    """Return echoing stages side by side, and one that joins what they send."""
    sides = fan_out(width)
    return (*sides, Stage(tuple(stage.target for stage in sides), width + 1, join))


def diamond() -> tuple[Stage, ...]:
    """Return one stage, two side by side, and one that joins these."""
    return (Stage((0,), 1), Stage((1,), 2), Stage((1,), 3), Stage((2, 3), 4, join))


@contextmanager
def running(
    stages: Sequence[Stage],
    sent: Any = 1,
    is_right: Callable[[Any], bool] = lambda answer: answer == 1,
    slot_bytes: int = SLOT_BYTES,
) -> Iterator[Side]:
    """Run a process per stage; a trip sends `sent` and takes what no stage reads.

    Args:
        stages: The processes.
        sent: What the driver sends.
        is_right: Tells whether an answer is.
        slot_bytes: Of every slot; only those pages are used that something is put into.

    Fork before the process has threads: open this side before any other.
    """
    used = {source for stage in stages for source in stage.sources}
    ends = [stage.target for stage in stages if stage.target not in used]
    with ExitStack() as stack:
        memory = stack.enter_context(mmap.mmap(-1, slot_bytes * (len(stages) + 1)))

        def slot(index: int) -> Slot:
            return stack.enter_context(closing(Slot(memory, index, _give_up, slot_bytes)))

        first, last = slot(0), [slot(index) for index in ends]
        stack.enter_context(_processes(memory, stages, slot_bytes))
        trip = _trip(first, last, sent, is_right)
        checked("floor", trip)
        yield Side(name="floor", block=timed(trip))
        first.put(None)
        for end in last:
            end.take()


def _trip(
    first: Slot, last: Sequence[Slot], sent: Any, is_right: Callable[[Any], bool]
) -> Callable[[], object]:
    (only, *more) = last

    def trip() -> object:
        first.put(sent)
        return 1 if is_right(only.take()) else 0

    def trip_to_several() -> object:
        first.put(sent)
        answers = [slot.take() for slot in last]
        return 1 if all(map(is_right, answers)) else 0

    return trip_to_several if more else trip


@contextmanager
def _processes(memory: mmap.mmap, stages: Sequence[Stage], slot_bytes: int) -> Iterator[None]:
    pids: list[int] = []
    try:
        pids.extend(_fork(memory, stage, slot_bytes) for stage in stages)
        yield
    finally:
        _reap(pids)


def _fork(memory: mmap.mmap, stage: Stage, slot_bytes: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _run(memory, stage, slot_bytes, parent)
    return pid


def _run(memory: mmap.mmap, stage: Stage, slot_bytes: int, parent: int) -> NoReturn:
    status = 1
    try:
        # The parent ends its stages itself on Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_if_orphan(parent)  # it may have died before prctl
        _serve(memory, stage, slot_bytes, lambda _slices: _end_if_orphan(parent))
        status = 0
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(status)  # nothing may return into the parent's stack


def _end_if_orphan(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)


def _serve(memory: mmap.mmap, stage: Stage, slot_bytes: int, idle: Callable[[int], None]) -> None:
    sources = [Slot(memory, index, idle, slot_bytes) for index in stage.sources]
    target, method = Slot(memory, stage.target, idle, slot_bytes), stage.method
    if len(sources) == 1:
        (source,) = sources
        while (value := source.take()) is not None:
            target.put(method(value))
    else:
        while (values := [source.take() for source in sources])[0] is not None:
            target.put(method(*values))
    target.put(None)


def _give_up(slices: int) -> None:
    if slices * SLICE_NS > ANSWER_LIMIT_S * 1e9:
        raise TimeoutError(f"the floor has not answered for {ANSWER_LIMIT_S:g} s")


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
