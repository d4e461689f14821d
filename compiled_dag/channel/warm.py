"""Memory that was used before and is used again: large values must not wait for the kernel.

The kernel clears a page before it gives it away, and in a virtual machine the host may have to find
one first: 64 MiB take 12 to 28 times as long as a copy into memory that is there. malloc keeps what
was freed, but only blocks of up to 32 MiB, and not always. So what a large value leaves behind is
kept here, a little, and taken again by a value of the same size.

Nobody but the value sees such memory, and it comes back when the last view of it is gone, in any
thread: a deque takes it without a lock. A forked child has copies of its own.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np

LARGE_BYTES: Final = 1 << 20
_LINE: Final = 64


class _Loan(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes that go back when the last array or tensor over them is gone."""

    home: deque[Any] | None = None
    memory: Any = None

    def __del__(self) -> None:
        home = self.home
        if home is not None:
            home.append(self.memory)


class WarmBytes:
    """What one owner has lent, and has back."""

    def __init__(self) -> None:
        self._back: deque[Any] = deque()
        """The one that came back last is at the end."""

    def __len__(self) -> int:
        """Return how many pieces are back."""
        return len(self._back)

    def lend(self, nbytes: int, kept_bytes: int) -> Any:
        """Return bytes, warm if some of this size came back: an array, of what values it happens.

        Args:
            nbytes: How many.
            kept_bytes: How many may stay here for later.
        """
        loan: Any = (memory := self._take(nbytes, kept_bytes)).view(_Loan)
        loan.home, loan.memory = self._back, memory
        return loan

    def _take(self, nbytes: int, room: int) -> Any:
        """Return what came back last of that size; let go of what has been here for too long."""
        back, found = self._back, None
        for _ in range(len(back)):
            try:
                one = back.pop()
            except IndexError:  # another thread has taken it
                break
            if found is None and len(one) == nbytes:
                found = one
            elif len(one) <= room:
                room -= len(one)
                back.appendleft(one)
        return _aligned(nbytes) if found is None else found

    def clear(self) -> None:
        """Let go of what is here."""
        self._back.clear()


def _aligned(nbytes: int) -> Any:
    """Return new memory that begins on a line of the cache, as torch's does."""
    raw = np.empty(nbytes + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + nbytes]
