"""The group's shared memory: who has arrived with what, before a backend is touched.

::

    page 0               u64 state
    then, 128 bytes each rank's line (below)
    then, per rank       2 x RECORD  what it brings to this and the previous operation
    then, per rank       2 x POISON  the error it brings instead of a value, or what does not fit
                                     into its record
    then, per rank       POISON      the error that came up in the middle of an operation
    then, per rank       FAILURE     how its backend failed: a u64 of bytes, and as many of text
    then                 the rendezvous log (see `collective.store`)
    then                 what a backend asked for (see `collective.shm_group`)

    a rank's line        +0   u64 preflights reached
                         +8   u64 1: it is here; 2: it has left
                         +16  u64 further meetings (see `collective.meetings`)
                         +24  u64 1 + the rank its main thread sends to or receives from, or 0
                         +32  2 x u64 digest of its record; 0 if it brings an error
                         +48  u64 1 + the core it is on, or 0 (see `collective.spread`)
                         +56  u64 the last preflight whose operation failed here in its middle

Everything but the state and the log has one writer, its rank. A rank writes its record, then its
count, and goes on once all counts have reached its own; so nobody is more than one operation ahead
of anybody, and two records per rank are enough (and one error from the middle of an operation: who
brings the next has met everybody since). Whoever comes last wakes the others, once: there is a
fence between a rank's count and its look at the others', so one that all came before sees so. The
state is written by the driver (CLOSED, BROKEN) and, when a backend fails, by any rank (FAULTED):
all say the same, "stop".

What a rank does with it is `collective.preflight`.
"""

from __future__ import annotations

import pickle
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from compiled_dag.errors import ChannelClosedError
from compiled_dag.shm import state as states
from compiled_dag.shm.segment import PAGE, Segment, round_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.outcome import Error
    from compiled_dag.shm.board import Board

_LINE: Final = 128
RECORD: Final = 256
POISON: Final = 16 * 1024
BESIDE: Final = POISON - 8
"""Bytes that a rank can show beside its record."""
FAILURE: Final = 512
LOG_BYTES: Final = 1 << 20

OPEN, CLOSED, BROKEN, FAULTED = states.OPEN, states.CLOSED, states.BROKEN, 4
_STATE_WORD: Final = states.STATE_WORD
_PRESENCE, MEETINGS, PEER, DIGESTS, CORE, _SPOILED = 1, 2, 3, 4, 6, 7
"""Words of a rank's line."""
_HERE, _LEFT = 1, 2
_POISON_TEXT: Final = POISON // 4
"""Characters of each part of an error that does not fit; they may be of several bytes."""


class GroupHeader:
    """A mapping of one group's header."""

    def __init__(
        self, segment: Segment, world_size: int, board: Board, processes: Sequence[int]
    ) -> None:
        """Map the header.

        Args:
            segment: Its memory, from `allocate`; `close` closes it.
            world_size: Number of ranks.
            board: The session's board.
            processes: Board line of each rank.
        """
        self.segment = segment
        self.world_size = world_size
        self._board = board
        self._processes = tuple(processes)
        self._lines = PAGE
        self._records = round_up(self._lines + world_size * _LINE)
        self._poisons = round_up(self._records + world_size * 2 * RECORD)
        self._spoils = self._poisons + world_size * 2 * POISON
        self._failures = self._spoils + world_size * POISON
        self.log = round_up(self._failures + world_size * FAILURE)
        self.end_of_log = self.log + LOG_BYTES
        """Where a backend's own memory begins."""
        self._mapping = self.segment.map(0, self.end_of_log)
        self.view = self._mapping.view()
        self.words = self.view.cast("Q")

    @staticmethod
    def allocate(segment: Segment, world_size: int, backend_bytes: int) -> None:
        """Have an empty segment be the memory of a group, with some for its backend.

        If this raises it may have a descriptor, to be closed.
        """
        records = round_up(PAGE + world_size * _LINE)
        poisons = round_up(records + world_size * 2 * RECORD)
        size = round_up(poisons + world_size * (3 * POISON + FAILURE)) + LOG_BYTES
        segment.allocate("compiled-dag-group", size + backend_bytes)
        segment.map(0, PAGE).view().cast("Q")[_STATE_WORD] = OPEN

    @property
    def state(self) -> int:
        """OPEN, CLOSED, BROKEN or FAULTED."""
        return self.words[_STATE_WORD]

    def end(self, state: int) -> None:
        """Stop the group and wake every rank."""
        if self.state == OPEN or state != FAULTED:
            states.set_state(self.words, state)
        self.ring_all()

    def fail(self, rank: int, text: str) -> None:
        """Stop the group because a rank's backend failed; says how, unless another did already."""
        data = text.encode(errors="replace")[: FAILURE - 8]
        if self.state == OPEN:
            place = self._failures + rank * FAILURE
            self.view[place + 8 : place + 8 + len(data)] = data
            self.words[place // 8] = len(data)
        self.end(FAULTED)

    def failure(self) -> str:
        """Return how the backend failed, on the first rank that has told; "" if none has."""
        for place in range(self._failures, self._failures + self.world_size * FAILURE, FAILURE):
            length = self.words[place // 8]
            if length:
                return bytes(self.view[place + 8 : place + 8 + length]).decode(errors="ignore")
        return ""

    def guard(self) -> None:
        """Raise if the driver has ended the group.

        Raises:
            ChannelClosedError: It has.
        """
        if self.words[_STATE_WORD] not in (OPEN, FAULTED):
            msg = "the collective group was ended"
            raise ChannelClosedError(msg)

    def stopped(self) -> bool:
        """Tell whether the driver has ended the group."""
        return self.words[_STATE_WORD] not in (OPEN, FAULTED)

    def line(self, rank: int) -> int:
        """Return the index in `words` of a rank's count."""
        return (self._lines + rank * _LINE) // 8

    def arrive(self, rank: int) -> None:
        """Show that a rank is about to join."""
        self.words[self.line(rank) + _PRESENCE] = _HERE
        self.ring_all()

    def leave(self, rank: int) -> None:
        """Show that a rank takes no part in anything any more."""
        self.words[self.line(rank) + _PRESENCE] = _LEFT
        self.ring_all()

    def has_left(self, rank: int) -> bool:
        """Tell whether a rank has left."""
        return self.words[self.line(rank) + _PRESENCE] == _LEFT

    def late(self, rank: int) -> list[int]:
        """Return the ranks that have reached fewer operations than `rank`."""
        reached = self.words[self.line(rank)]
        ranks = range(self.world_size)
        return [other for other in ranks if self.words[self.line(other)] < reached]

    def absent(self) -> list[int]:
        """Return the ranks that have not arrived."""
        ranks = range(self.world_size)
        return [rank for rank in ranks if not self.words[self.line(rank) + _PRESENCE]]

    def spoil(self, rank: int, turn: int, error: Error) -> None:
        """Show that the operation of preflight number `turn` has failed on a rank, and how."""
        show_bytes(self.view, self._spoils + rank * POISON, small_error(error))
        self.words[self.line(rank) + _SPOILED] = turn

    def spoiled(self, turn: int) -> Error | None:
        """Return how an operation has failed on the first rank that has shown so."""
        for rank in range(self.world_size):
            if self.words[self.line(rank) + _SPOILED] == turn:
                shown: Error = pickle.loads(shown_bytes(self.view, self._spoils + rank * POISON))
                return shown.at(rank=rank)
        return None

    def record(self, rank: int, turn: int) -> int:
        """Return the offset of a rank's record for preflight number `turn`."""
        return self._records + (rank * 2 + turn % 2) * RECORD

    def poison(self, rank: int, turn: int) -> int:
        """Return the offset of a rank's error for preflight number `turn`."""
        return self._poisons + (rank * 2 + turn % 2) * POISON

    def ring(self, rank: int) -> None:
        """Wake a rank if it sleeps."""
        self._board.ring(self._processes[rank])

    def bell_of(self, ranks: Sequence[int]) -> Callable[[], None]:
        """Return what wakes those of `ranks` that sleep, behind a fence of the caller's."""
        return partial(self._board.wake_each, tuple(self._processes[rank] for rank in ranks))

    def ring_all(self) -> None:
        """Wake every rank that sleeps."""
        self._board.ring_each(self._processes)

    def close(self) -> None:
        """Close the descriptor."""
        self.segment.close()


def show_bytes(view: memoryview, place: int, data: bytes) -> None:
    """Write `data` and how much it is."""
    struct.pack_into("Q", view, place, len(data))
    view[place + 8 : place + 8 + len(data)] = data


def shown_bytes(view: memoryview, place: int) -> bytes:
    """Return what `show_bytes` wrote."""
    (length,) = struct.unpack_from("Q", view, place)
    return bytes(view[place + 8 : place + 8 + length])


def small_error(error: Error) -> bytes:
    """Pickle `error` so that it fits: first without its cause, then with less and less text."""
    data, limit = pickle.dumps(error), _POISON_TEXT
    while len(data) > BESIDE:
        data, limit = pickle.dumps(error.shortened(limit)), limit // 2
    return data
