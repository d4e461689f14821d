"""Measure another floor: Python processes that answer over pipes.

What a call costs at least where the other side sleeps in the kernel and values are pickled; nothing
is queued, named or looked up. A process ends when the pipe it reads is closed, whatever closes it.

Unless asked otherwise all sides run on one core while they are timed. Left to the kernel they are
on one core or on two, for many rounds at a time, and a trip takes 5 us or 70 (the other core has to
be woken): no floor.
"""

from __future__ import annotations

import os
import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from benchmarks.rounds import Side, echoing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST = 4096
"""Bytes of a message: smaller than a pipe writes at once, so each arrives whole."""


@contextmanager
def ping_pong(stages: int = 1, *, name: str = "floor", pinned: bool = True) -> Iterator[Side]:
    """Run echoing processes in a row; a trip sends them an int and reads the int that comes back.

    Args:
        stages: How many.
        name: Of the side.
        pinned: Whether all run on one core while they are timed.

    Fork before the process has threads: open this side before any other.
    """
    cores = os.sched_getaffinity(0)
    core = {min(cores)} if pinned else cores
    pipes = [os.pipe() for _ in range(stages + 1)]
    pids = [_fork(pipes, stage, core) for stage in range(stages)]
    ask, answered = pipes[0][1], pipes[-1][0]
    for fd in {fd for pipe in pipes for fd in pipe} - {ask, answered}:
        os.close(fd)

    def trip() -> object:
        os.write(ask, pickle.dumps(1, 5))
        return pickle.loads(os.read(answered, _MOST))

    side = echoing(name, trip)

    def block(trips: int) -> Sequence[int]:
        os.sched_setaffinity(0, core)  # of this thread only
        try:
            return side.block(trips)
        finally:
            os.sched_setaffinity(0, cores)

    try:
        yield Side(name=name, block=block)
    finally:
        os.close(ask)
        os.close(answered)
        for pid in pids:
            os.waitpid(pid, 0)


def _fork(pipes: Sequence[tuple[int, int]], stage: int, core: set[int]) -> int:
    pid = os.fork()
    if not pid:
        asked, answer = pipes[stage][0], pipes[stage + 1][1]
        for fd in {fd for pipe in pipes for fd in pipe} - {asked, answer}:
            os.close(fd)
        os.sched_setaffinity(0, core)
        _echo_forever(asked, answer)
    return pid


def _echo_forever(asked: int, answer: int) -> NoReturn:
    try:
        while message := os.read(asked, _MOST):
            os.write(answer, pickle.dumps(pickle.loads(message), 5))
    finally:
        os._exit(0)  # nothing may return into the parent's stack
