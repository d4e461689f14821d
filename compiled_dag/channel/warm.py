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
from typing import Any, Final, NamedTuple

import numpy as np

from compiled_dag.interrupts import finalizer

LARGE_BYTES: Final = 1 << 20
_LINE: Final = 64


class _Piece(NamedTuple):
    """Memory that belongs to nobody at the moment."""

    raw: bytearray
    start: int
    """Where in it the bytes begin: on a line of the cache, as torch's memory does."""
    nbytes: int


class _Loan(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes that go back when the last array or tensor over them is gone.

    Over a bytearray: of arrays over an array numpy keeps only the innermost one alive.
    """

    home: deque[_Piece] | None = None
    piece: Any = None

    @finalizer
    def __del__(self) -> None:
        home, self.home = self.home, None  # once, if this is run again
        if home is not None:
            home.append(self.piece)


class WarmBytes:
    """What one owner has lent, and has back."""

    def __init__(self) -> None:
        self._back: deque[_Piece] = deque()
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
        piece = self._take(nbytes, kept_bytes)
        loan = _Loan((nbytes,), np.uint8, piece.raw, piece.start)
        loan.home, loan.piece = self._back, piece
        return loan

    def _take(self, nbytes: int, room: int) -> _Piece:
        """Return what came back last of that size; let go of what has been here for too long."""
        back, found = self._back, None
        for _ in range(len(back)):
            try:
                one = back.pop()
            except IndexError:  # another thread has taken it
                break
            if found is None and one.nbytes == nbytes:
                found = one
            elif one.nbytes <= room:
                room -= one.nbytes
                back.appendleft(one)
        return _new(nbytes) if found is None else found

    def clear(self) -> None:
        """Let go of what is here."""
        self._back.clear()


def _new(nbytes: int) -> _Piece:
    raw = bytearray(nbytes + _LINE)
    return _Piece(raw, -np.frombuffer(raw, np.uint8).ctypes.data % _LINE, nbytes)
