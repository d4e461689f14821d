"""Taking locks without waiting, or not for long, so that Ctrl-C never leaves one taken.

Python handles signals when a call has returned. Between ``lock.acquire(False)`` and the ``try``
that is to release the lock is such a moment, and a lock that Ctrl-C leaves taken there stops every
other thread for good. A `with` has none, but can only wait. A `for` has none either, between a step
of an iterator written in C and the body, so an attempt is such a step::

    for taken in lock_attempts:
        if taken:
            try:
                ...
            finally:
                lock.release()
        break  # after one attempt; or go on, for another
"""

from __future__ import annotations

from itertools import repeat, starmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def attempts(acquire: Callable[..., bool], timeout_s: float = 0.0) -> Iterator[bool]:
    """Return endless attempts to take a lock, each of which tells whether it has taken it.

    Any thread may take a step of the same iterator, also while another one is at it.

    Args:
        acquire: Of a lock made by `threading`.
        timeout_s: How long one attempt waits, in seconds.
    """
    return starmap(acquire, repeat((True, timeout_s) if timeout_s else (False,)))
