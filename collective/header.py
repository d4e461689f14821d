"""The group's shared memory: who has arrived with what, before a backend is touched.

::

    page 0               u64 magic, epoch, state, ranks
    then, 128 bytes each rank's line: u64 preflights reached, whether it is here
    then, per rank       2 x RECORD  what it brings to this and the previous operation
    then, per rank       2 x POISON  the error it brings instead of a value
    then                 the rendezvous log (see `collective.store`)

Everything but the state and the log has one writer, its rank. A rank writes its record, then its
count, and goes on once all counts have reached its own; so nobody is more than one operation ahead
of anybody, and two records per rank are enough. The state is written by the driver (CLOSED, BROKEN)
and, when a backend fails, by any rank (FAULTED): all say the same, "stop".

Later issues add regions behind the log for collectives over shared memory.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Final

from compiled_dag.errors import ChannelClosedError
from compiled_dag.shm import state as states
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.segment import PAGE, Segment, round_up
from compiled_dag.shm.waiter import Site, Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.outcome import Error
    from compiled_dag.shm.board import Board

MAGIC: Final = 0x31505247474144  # "DAGGRP1"
_LINE: Final = 128
RECORD: Final = 256
POISON: Final = 16 * 1024
LOG_BYTES: Final = 1 << 20

OPEN, CLOSED, BROKEN, FAULTED = states.OPEN, states.CLOSED, states.BROKEN, 4
_EPOCH_WORD, _STATE_WORD, _RANKS_WORD = 1, states.STATE_WORD, 2
_POISON_TEXT: Final = POISON // 4
"""Characters of each part of an error that does not fit; they may be of several bytes."""


class GroupHeader:
    """A mapping of one group's header."""

    def __init__(self, fd: int, world_size: int, board: Board, processes: Sequence[int]) -> None:
        """Map the header.

        Args:
            fd: The segment; owned from here on.
            world_size: Number of ranks.
            board: The session's board.
            processes: Board line of each rank.
        """
        self.segment = Segment(fd)
        self.world_size = world_size
        self._board = board
        self._processes = tuple(processes)
        self._lines = PAGE
        self._records = round_up(self._lines + world_size * _LINE)
        self._poisons = round_up(self._records + world_size * 2 * RECORD)
        self.log = self._poisons + world_size * 2 * POISON
        self._mapping = self.segment.map(0, self.log + LOG_BYTES)
        self.view = self._mapping.view()
        self.words = self.view.cast("Q")

    @staticmethod
    def create(world_size: int, epoch: int) -> Segment:
        """Make the memory of a group; the caller owns the segment."""
        records = round_up(PAGE + world_size * _LINE)
        size = round_up(records + world_size * 2 * RECORD) + world_size * 2 * POISON + LOG_BYTES
        segment = Segment.create("compiled-dag-group", size)
        words = segment.map(0, PAGE).view().cast("Q")
        words[0], words[_EPOCH_WORD], words[_RANKS_WORD] = MAGIC, epoch, world_size
        words[_STATE_WORD] = OPEN
        return segment

    @property
    def state(self) -> int:
        """OPEN, CLOSED, BROKEN or FAULTED."""
        return self.words[_STATE_WORD]

    def end(self, state: int) -> None:
        """Stop the group and wake every rank."""
        if self.state == OPEN or state != FAULTED:
            self.words[_STATE_WORD] = state
        for process in self._processes:
            self._board.ring(process)

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
        self.words[self.line(rank) + 1] = 1
        self.ring_all()

    def absent(self) -> list[int]:
        """Return the ranks that have not arrived."""
        return [rank for rank in range(self.world_size) if not self.words[self.line(rank) + 1]]

    def record(self, rank: int, turn: int) -> int:
        """Return the offset of a rank's record for preflight number `turn`."""
        return self._records + (rank * 2 + turn % 2) * RECORD

    def poison(self, rank: int, turn: int) -> int:
        """Return the offset of a rank's error for preflight number `turn`."""
        return self._poisons + (rank * 2 + turn % 2) * POISON

    def ring_all(self) -> None:
        """Wake every rank that sleeps."""
        for process in self._processes:
            self._board.ring(process)

    def close(self) -> None:
        """Close the descriptor."""
        self.segment.close()


class Preflight:
    """One rank's side of the comparison before each operation."""

    def __init__(self, header: GroupHeader, rank: int, waiter: Waiter) -> None:
        self._header = header
        self._rank = rank
        self._waiter = waiter
        self._site = Site()
        self._turn = 0
        self._mine = b""
        self._lines = [header.line(other) for other in range(header.world_size)]

    def arrive(self, record: bytes, error: Error | None) -> None:
        """Show what this rank brings.

        Args:
            record: At most 255 bytes that must be the same on every rank that has any.
            error: What this rank has instead of a value.
        """
        header, rank = self._header, self._rank
        turn = self._turn = self._turn + 1
        self._mine = self._show(record, error, turn)
        if not STORES_STAY_IN_ORDER:
            fence()
        header.words[self._lines[rank]] = turn
        header.ring_all()

    def meet(self) -> list[bytes] | Error | None:
        """Wait for the other ranks, and compare.

        Returns:
            None if all ranks bring the same; the first rank's `Error` if some have one (also when
            the records differ); all records, by rank, if they differ, each after one byte.

        Raises:
            ChannelClosedError: The group was ended while waiting.
        """
        header, turn, mine = self._header, self._turn, self._mine
        words = header.words
        for line in self._lines:
            # One load, compared and waited on: a second one could already show the arrival.
            while (seen := words[line]) < turn:
                self._waiter.word(words, line, seen, header.guard, None, self._site)
        if not STORES_STAY_IN_ORDER:
            fence()
        view = header.view
        places = [header.record(other, turn) for other in range(header.world_size)]
        records = [bytes(view[place : place + RECORD]) for place in places]
        if records.count(mine) == len(records) and not mine[0]:
            return None
        for other, shown in enumerate(records):
            if shown[0]:
                return self._poison(other, turn)
        return records

    def _show(self, record: bytes, error: Error | None, turn: int) -> bytes:
        header, rank = self._header, self._rank
        flag = b"\0" if error is None else b"\1"
        mine = (flag + record).ljust(RECORD, b"\0")
        place = header.record(rank, turn)
        header.view[place : place + RECORD] = mine
        if error is not None:
            data = _small(error)
            place = header.poison(rank, turn)
            struct.pack_into("Q", header.view, place, len(data))
            header.view[place + 8 : place + 8 + len(data)] = data
        return mine

    def _poison(self, rank: int, turn: int) -> Error:
        place = self._header.poison(rank, turn)
        (length,) = struct.unpack_from("Q", self._header.view, place)
        error: Error = pickle.loads(bytes(self._header.view[place + 8 : place + 8 + length]))
        return error.at(rank=rank)


def _small(error: Error) -> bytes:
    """Pickle `error` so that it fits: first without its cause, then with less and less text."""
    data, limit = pickle.dumps(error), _POISON_TEXT
    while len(data) > POISON - 8:
        data, limit = pickle.dumps(error.shortened(limit)), limit // 2
    return data
