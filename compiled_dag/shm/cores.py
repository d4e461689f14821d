"""The core that a thread is on, and going to another one without staying bound to it."""

from __future__ import annotations

import ctypes
import os

current = ctypes.PyDLL(None).sched_getcpu
"""Returns the number of the calling thread's core. It keeps the GIL: it takes 0.06 us."""


def count() -> int:
    """Return how many cores the calling thread may use."""
    return len(os.sched_getaffinity(0))


def move(core: int) -> None:
    """Put the calling thread on `core`; it may use the same cores afterwards as before.

    It stays there until the scheduler has a reason to move it.

    Raises:
        OSError: It may not use that core, or a sandbox forbids this.
    """
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, (core,))
    finally:
        os.sched_setaffinity(0, allowed)
