"""Memory of large values that nobody uses any more, kept for the next ones.

The kernel clears a page before it gives it away, and in a virtual machine the host may have to find
one first: writing a megabyte into new memory takes over ten times as long as into memory that was
used before. So the driver keeps what its objects leave behind, a little and for a moment.

Only memory that nobody can see is reused: every process that maps a value keeps its reference, or
the lease of an argument, while an array of it lives (`runtime.parcel`), and the driver learns when
the last one is gone. A forked child tells nobody, so what its parent sees then is not used again.

Processes keep mappings (`runtime.mapped`), so what is given back to the kernel is punched first.

Finalizers give memory back, at any point of any thread: nothing here takes a lock, and containers
are only changed by single operations.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

from compiled_dag.shm.segment import PAGE, punch, round_up
from runtime.mapped import MAPPINGS, MOST_EACH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_BYTES: Final = 64 << 20
_KEPT_S: Final = 0.5
"""What was not used again for this long, up to twice as long, is given back."""
_FRACTION_BITS: Final = 3
"""Capacities are multiples of an eighth of the power of two below: at most that much is wasted."""


def capacity_for(size: int) -> int:
    """Return how much memory to make for a value, so that others of about its size fit."""
    step = 1 << max(0, size.bit_length() - 1 - _FRACTION_BITS)
    return round_up(round_up(size, step), PAGE)


class WarmMemory:
    """The driver's stock of used segments, by capacity."""

    def __init__(
        self,
        soon: Callable[[Callable[[], object]], None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """Make an empty stock.

        Args:
            soon: Runs a function on the supervising thread; safe in finalizers.
            later: Runs one there after so many seconds; for that thread.
        """
        self._soon = soon
        self._later = later
        self._stock: dict[int, deque[int]] = {}
        self._aging: dict[int, int] = {}
        """How much of each capacity's stock, from the left, was there at the last look."""
        self._waits = False
        self._closed = False

    def take(self, size: int) -> int:
        """Return a descriptor of memory for `size` bytes, or -1; the caller owns it."""
        stock = self._stock.get(capacity_for(size))
        if stock:
            try:
                return stock.pop()  # the last one given back is the warmest
            except IndexError:
                pass  # another thread has taken it
        return -1

    def give(self, fd: int) -> bool:
        """Take a segment over if there is room for it, else empty it. Safe in finalizers."""
        if self._closed:
            return False
        capacity = os.fstat(fd).st_size
        held = sum(each * len(stock) for each, stock in list(self._stock.items()))
        if capacity > MOST_EACH_BYTES or held + capacity > _MOST_BYTES:
            _empty(fd)
            return False
        self._stock.setdefault(capacity, deque()).append(fd)
        if not self._waits:
            self._waits = True
            self._soon(lambda: self._later(_KEPT_S, self._trim))
        return True

    def _trim(self) -> None:
        """Give back what has been here since the last look."""
        for capacity, stock in list(self._stock.items()):
            for _ in range(min(self._aging.get(capacity, 0), len(stock))):
                self._drop_oldest(stock)
            self._aging[capacity] = len(stock)
        self._waits = any(self._stock.values())
        if self._waits:
            self._later(_KEPT_S, self._trim)

    @staticmethod
    def _drop_oldest(stock: deque[int]) -> None:
        try:
            fd = stock.popleft()
        except IndexError:
            return  # taken meanwhile
        _empty(fd)
        os.close(fd)

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self._closed = True
        for stock in list(self._stock.values()):
            while stock:
                self._drop_oldest(stock)

    def abandon(self) -> None:
        """Close the descriptors, in a forked child: the memory is its parent's."""
        self._closed = True
        for stock in list(self._stock.values()):
            while stock:
                os.close(stock.popleft())


class Stock:
    """Where memory comes from that was used before, and where it goes back to."""

    take: Callable[[int], int] = staticmethod(lambda _size: -1)
    give: Callable[[int], bool] = staticmethod(lambda _fd: False)
    forks = 0
    """How often a process that may see values has forked: its children see them for ever."""


def set_stock(take: Callable[[int], int] | None, give: Callable[[int], bool] | None) -> None:
    """Say where memory comes from.

    Args:
        take: Returns memory for so many bytes, or -1. None: there is none.
        give: Takes memory over that nobody sees, or tells that it does not. Safe in finalizers.
    """
    Stock.take = staticmethod(take or (lambda _size: -1))
    Stock.give = staticmethod(give or (lambda _fd: False))


def note_fork() -> None:
    """Never use memory again that values are in now: a forked child sees it, and does not tell."""
    Stock.forks += 1


os.register_at_fork(before=note_fork)


def _empty(fd: int) -> None:
    """Give the memory of a segment back that nobody sees, whoever keeps a mapping of it."""
    status = os.fstat(fd)
    MAPPINGS.forget(status.st_ino)
    punch(fd, 0, status.st_size)
