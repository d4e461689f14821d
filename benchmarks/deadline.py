"""Bound a measurement in time, whatever it hangs in."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

CLEANUP_S = 30.0
"""How long after the first alarm a cleanup that hangs too is broken off."""


@contextmanager
def deadline(limit_s: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread once `limit_s` is over, and again after each cleanup.

    An alarm costs the timed code nothing until it rings, unlike a timeout passed to every `get`.
    """

    def ring(_signal: int, _frame: object) -> NoReturn:
        raise TimeoutError(f"timed out after {limit_s:g} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, CLEANUP_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
