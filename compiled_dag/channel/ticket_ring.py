"""The order in which an actor takes its turns in the graphs of one driver: a ring of tickets.

::

    +0      u64 issued   the driver: tickets written so far
    +128    u64 passed   the actor: tickets it has done with
    +4096   SLOTS x u64  tickets: key of the graph << 44 | number of the execution, 0 if taken back

A turn is one execution of one graph on one actor. An actor in one graph needs no tickets: that
graph's executions come in order. Where it is in several, the driver writes a ticket for each
execution before it shows the first input, to all actors that the graph shares; the tickets of one
execution are written under one lock, so any two executions come in the same order everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.segment import PAGE, Segment, round_up

if TYPE_CHECKING:
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Source

SLOTS: Final = 8192
_SIZE: Final = round_up(PAGE + SLOTS * 8)
_ISSUED, _PASSED, _FIRST = 0, 16, PAGE // 8
_EXECUTION_BITS: Final = 44
_EXECUTION_MASK: Final = (1 << _EXECUTION_BITS) - 1
MAX_KEY: Final = (1 << (64 - _EXECUTION_BITS)) - 1


class TicketRing:
    """The driver's end of one actor's ring; owns its memory."""

    def __init__(self, board: Board, process: int) -> None:
        """Make the memory.

        Args:
            board: The session's board.
            process: The actor's line there.
        """
        self.segment = Segment.create("compiled-dag-tickets", _SIZE)
        self._words = self.segment.map(0, _SIZE).view().cast("Q")
        self._board = board
        self._process = process

    @property
    def issued(self) -> int:
        """How many tickets were written so far."""
        return self._words[_ISSUED]

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return self._words[_ISSUED] - self._words[_PASSED] >= SLOTS

    def issue(self, key: int, execution: int) -> None:
        """Write one more ticket; `key` is from 1."""
        words = self._words
        issued = words[_ISSUED]
        words[_FIRST + issued % SLOTS] = key << _EXECUTION_BITS | execution
        if not STORES_STAY_IN_ORDER:
            fence()
        words[_ISSUED] = issued + 1

    def take_back(self, position: int) -> None:
        """Have the actor pass over ticket number `position`, which may not be written yet."""
        if position < self._words[_ISSUED]:
            self._words[_FIRST + position % SLOTS] = 0
            self._board.ring(self._process)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        self.segment.close()


class TicketReader:
    """The actor's end."""

    def __init__(self, fd: int) -> None:
        """Map the ring; owns `fd`, which is closed at once."""
        segment = Segment(fd)
        try:
            self._words = segment.map(0, _SIZE).view().cast("Q")
        finally:
            segment.close()
        self._passed = 0

    def next(self) -> tuple[int, int] | None:
        """Return the next ticket, key and execution, or None if none was written."""
        if self._words[_ISSUED] == self._passed:
            return None
        if not STORES_STAY_IN_ORDER:
            fence()
        ticket = self._words[_FIRST + self._passed % SLOTS]
        return ticket >> _EXECUTION_BITS, ticket & _EXECUTION_MASK

    def source(self) -> Source:
        """Return the word that changes when a ticket is written, if none is there."""
        return self._words, _ISSUED, self._passed

    def pass_over(self) -> None:
        """Be done with the next ticket."""
        self._passed += 1
        self._words[_PASSED] = self._passed
