"""What the driver did with a graph lately: its executes and gets.

Not in the segment, as the actors' rings are: only the driver reads traces, and what it keeps for
itself costs half of that, is never torn, and may come from any of its threads.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from compiled_dag.channel.reader import Reader

_MOST: Final = 2048
_MOST_TAKEN: Final = 4 * _MOST


class Submitted(NamedTuple):
    """An `execute` that wrote its inputs; times are of the monotonic clock."""

    execution: int
    begin_ns: int
    """0 if writing its inputs took too little to be noted."""
    end_ns: int


class Taken(NamedTuple):
    """A result read off its channel, if it has been."""

    channel: int
    execution: int
    since_ns: int
    """When somebody began to wait for it, or to take it."""
    arrived_ns: int
    end_ns: int
    """Both 0 if it was not taken, or taking it took too little to be noted."""


class Log:
    """Bounded records, as plain tuples and lists: these cost least."""

    __slots__ = ("submitted", "taken")

    def __init__(self, num_channels: int) -> None:
        """Begin empty.

        Args:
            num_channels: How many channels the driver reads and writes.
        """
        self.submitted: deque[tuple[int, int, int]] = deque(maxlen=_MOST)
        """Fields of `Submitted`."""
        most = min(_MOST * max(num_channels, 1), _MOST_TAKEN)
        self.taken: deque[list[int]] = deque(maxlen=most)
        """Fields of `Taken`: made before the wait, when there is time, and completed after it."""

    def took(self, reader: Reader, execution: int, since_ns: int) -> None:
        """Record that a result was taken just now."""
        end_ns = time.monotonic_ns()
        arrived_ns, reader.stamps[0] = reader.stamps[0] or end_ns, 0
        self.taken.append([reader.spec.index, execution, since_ns, arrived_ns, end_ns])

    def read(self) -> tuple[list[Submitted], list[Taken]]:
        """Return what there is."""
        # A deque that grows while it is iterated raises; copy() does it in one go under the GIL.
        submitted, taken = self.submitted.copy(), self.taken.copy()
        return [Submitted(*one) for one in submitted], [Taken(*one) for one in taken]
