"""Measure another floor: a Python process that answers over a pair of pipes.

What a call costs at least where the other side sleeps in the kernel and values are pickled; nothing
is queued, named or looked up. The process ends when its parent's end of the pipe is closed,
whatever closes it.

Both sides run on one core while it is timed. Left to the kernel they are on one core or on two, for
many rounds at a time, and a trip takes 5 us or 70 (the other core has to be woken): no floor.
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
def ping_pong() -> Iterator[Side]:
    """Run an echoing process; a trip sends it an int and reads the int it answers.

    Fork before the process has threads: open this side before any other.
    """
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    cores = os.sched_getaffinity(0)
    core = {min(cores)}
    pid = os.fork()
    if not pid:
        os.close(ask)
        os.close(answered)
        os.sched_setaffinity(0, core)
        _echo_forever(asked, answer)
    os.close(asked)
    os.close(answer)

    def trip() -> object:
        os.write(ask, pickle.dumps(1, 5))
        return pickle.loads(os.read(answered, _MOST))

    side = echoing("floor", trip)

    def block(trips: int) -> Sequence[int]:
        os.sched_setaffinity(0, core)  # of this thread only
        try:
            return side.block(trips)
        finally:
            os.sched_setaffinity(0, cores)

    try:
        yield Side(name=side.name, block=block)
    finally:
        os.close(ask)
        os.close(answered)
        os.waitpid(pid, 0)


def _echo_forever(asked: int, answer: int) -> NoReturn:
    try:
        while message := os.read(asked, _MOST):
            os.write(answer, pickle.dumps(pickle.loads(message), 5))
    finally:
        os._exit(0)  # nothing may return into the parent's stack
