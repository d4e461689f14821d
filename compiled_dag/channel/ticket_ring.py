"""The order in which an actor takes its turns in the graphs of one driver: a ring of tickets.

::

    +0      u64 issued   the driver: tickets written so far
    +128    u64 passed   the actor: tickets it has done with
    +4096   SLOTS x u64  tickets: key of a graph << 44 | executions of the graph before it

A turn is one execution of one graph on one actor. An actor in one graph needs no tickets: that
graph's executions come in order. Where it is in several, a ticket gives *all* following turns to
one graph, until the next ticket, which also says with which execution they ended. So only an
execution of another graph than the last one's takes a ticket. It is written to all actors the graph
shares, under one lock, before the first input is shown: any two executions come in the same order
everywhere.
"""

from __future__ import annotations

from typing import Final

from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.segment import PAGE, Segment, round_up

SLOTS: Final = 8192
_SIZE: Final = round_up(PAGE + SLOTS * 8)
_ISSUED, _PASSED, _FIRST = 0, 16, PAGE // 8
_EXECUTION_BITS: Final = 44
_EXECUTION_MASK: Final = (1 << _EXECUTION_BITS) - 1
MAX_KEY: Final = (1 << (64 - _EXECUTION_BITS)) - 1


class TicketRing:
    """The driver's end of one actor's ring; owns its memory."""

    def __init__(self) -> None:
        self.segment = Segment.create("compiled-dag-tickets", _SIZE)
        self._words = self.segment.map(0, _SIZE).view().cast("Q")

    @property
    def holder(self) -> int:
        """The key of the graph whose turns it are; 0 before the first ticket."""
        words = self._words
        issued = words[_ISSUED]
        return words[_FIRST + (issued - 1) % SLOTS] >> _EXECUTION_BITS if issued else 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return self._words[_ISSUED] - self._words[_PASSED] >= SLOTS

    def issue(self, key: int, ended: int) -> None:
        """Give all following turns to a graph.

        Args:
            key: The graph's, from 1.
            ended: How many executions of the holder before it belong before it.
        """
        words = self._words
        issued = words[_ISSUED]
        words[_FIRST + issued % SLOTS] = key << _EXECUTION_BITS | ended
        if not STORES_STAY_IN_ORDER:
            fence()
        words[_ISSUED] = issued + 1

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        self.segment.close()


class TicketReader:
    """The actor's end."""

    def __init__(self, fd: int) -> None:
        """Map the ring; owns `fd`, which is closed at once."""
        segment = Segment(fd)
        try:
            self.words = segment.map(0, _SIZE).view().cast("Q")
        finally:
            segment.close()
        self.taken = 0
        """Tickets read so far; there is another one if `words[0]` is larger."""

    def next(self) -> tuple[int, int] | None:
        """Return the next ticket: key, and executions before it; None if none was written."""
        if self.words[_ISSUED] == self.taken:
            return None
        if not STORES_STAY_IN_ORDER:
            fence()
        ticket = self.words[_FIRST + self.taken % SLOTS]
        return ticket >> _EXECUTION_BITS, ticket & _EXECUTION_MASK

    def take(self) -> None:
        """Be done with the ticket before the next one, which is taken up."""
        self.words[_PASSED] = self.taken
        self.taken += 1
