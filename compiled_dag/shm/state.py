"""The state word of memory on which several processes wait: a graph's, a group's.

It is on a line of its own, at the same place in every such segment, so that a segment can be marked
by who knows nothing else of it: what a process drives is broken for it when it dies.

Who waits for more than the state sleeps on its process's doorbell, which is rung besides. A thread
that waits for nothing else sleeps on the word itself, its lower half, which is the first one on the
machines there are: the kernel compares and sleeps at once, so no change is missed.
"""

from __future__ import annotations

import ctypes
from typing import Final

from compiled_dag.shm.futex import Timespec, futex_wait, futex_wake
from compiled_dag.shm.segment import PAGE, Mapping

STATE_WORD: Final = 16
"""Index among the segment's u64 words."""
OPEN, CLOSED, BROKEN = 1, 2, 3

LONG_S: Final = 3600.0
"""As good as for ever, of a sleep that ends by being woken."""


def set_state(words: memoryview[int], state: int) -> None:
    """Write the state, and wake the threads that sleep on it."""
    words[STATE_WORD] = state
    wake(words)


def wake(words: memoryview[int]) -> None:
    """Have the threads that sleep on the state look again."""
    futex_wake(_address(words))


def sleep_while(words: memoryview[int], state: int, at_most_s: float = LONG_S) -> None:
    """Sleep until the state is another one than `state`; may return early, for no reason."""
    futex_wait(_address(words), state, Timespec.of(at_most_s))


def mark_broken(fd: int) -> None:
    """Mark a segment broken if it is open; who waits on it has to be woken afterwards."""
    words = Mapping(fd, 0, PAGE).view().cast("Q")
    if words[STATE_WORD] not in (CLOSED, BROKEN):
        set_state(words, BROKEN)


def _address(words: memoryview[int]) -> ctypes.c_void_p:
    place = ctypes.c_uint32.from_buffer(words, STATE_WORD * words.itemsize)
    return ctypes.c_void_p(ctypes.addressof(place))
