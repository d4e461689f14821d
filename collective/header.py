"""The group's shared memory: who has arrived with what, before a backend is touched.

::

    page 0               u64 magic, epoch, state, ranks
    then, 128 bytes each rank's line (below)
    then, per rank       2 x RECORD  what it brings to this and the previous operation
    then, per rank       2 x POISON  the error it brings instead of a value, or what does not fit
                                     into its record
    then, per rank       FAILURE     how its backend failed: a u64 of bytes, and as many of text
    then                 the rendezvous log (see `collective.store`)
    then                 what a backend asked for (see `collective.shm_group`)

    a rank's line        +0   u64 preflights reached
                         +8   u64 1: it is here; 2: it has left
                         +16  u64 further meetings (see `collective.meetings`)
                         +24  u64 1 + the rank its main thread sends to or receives from, or 0
                         +32  2 x u64 digest of its record; 0 if it brings an error
                         +48  u64 1 + the core it is on, or 0 (see `collective.spread`)

Everything but the state and the log has one writer, its rank. A rank writes its record, then its
count, and goes on once all counts have reached its own; so nobody is more than one operation ahead
of anybody, and two records per rank are enough. The state is written by the driver (CLOSED, BROKEN)
and, when a backend fails, by any rank (FAULTED): all say the same, "stop".

Most operations bring what the last but one did: then its record is there already, and comparing
takes one word of 64 bits per rank (records that differ have the same digest once in 2^64). Only
where digests differ are the records themselves looked at.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Final

from collective.spread import BETWEEN, Spread
from compiled_dag.errors import ChannelClosedError
from compiled_dag.shm import cores
from compiled_dag.shm import state as states
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.segment import PAGE, Segment, round_up
from compiled_dag.shm.waiter import Guard, Site, Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.outcome import Error
    from compiled_dag.shm.board import Board

MAGIC: Final = 0x31505247474144  # "DAGGRP1"
_LINE: Final = 128
RECORD: Final = 256
POISON: Final = 16 * 1024
BESIDE: Final = POISON - 8
"""Bytes that a rank can show beside its record."""
FAILURE: Final = 512
LOG_BYTES: Final = 1 << 20

OPEN, CLOSED, BROKEN, FAULTED = states.OPEN, states.CLOSED, states.BROKEN, 4
_EPOCH_WORD, _STATE_WORD, _RANKS_WORD = 1, states.STATE_WORD, 2
_PRESENCE, MEETINGS, PEER, _DIGESTS, _CORE = 1, 2, 3, 4, 6
"""Words of a rank's line."""
_HERE, _LEFT = 1, 2
_MAX_DIGESTS: Final = 256
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
        self._failures = self._poisons + world_size * 2 * POISON
        self.log = round_up(self._failures + world_size * FAILURE)
        self.end_of_log = self.log + LOG_BYTES
        """Where a backend's own memory begins."""
        self._mapping = self.segment.map(0, self.end_of_log)
        self.view = self._mapping.view()
        self.words = self.view.cast("Q")

    @staticmethod
    def allocate(segment: Segment, world_size: int, epoch: int, backend_bytes: int) -> None:
        """Have an empty segment be the memory of a group, with some for its backend.

        If this raises it may have a descriptor, to be closed.
        """
        records = round_up(PAGE + world_size * _LINE)
        poisons = round_up(records + world_size * 2 * RECORD)
        size = round_up(poisons + world_size * (2 * POISON + FAILURE)) + LOG_BYTES
        segment.allocate("compiled-dag-group", size + backend_bytes)
        words = segment.map(0, PAGE).view().cast("Q")
        words[0], words[_EPOCH_WORD], words[_RANKS_WORD] = MAGIC, epoch, world_size
        words[_STATE_WORD] = OPEN

    @property
    def state(self) -> int:
        """OPEN, CLOSED, BROKEN or FAULTED."""
        return self.words[_STATE_WORD]

    def end(self, state: int) -> None:
        """Stop the group and wake every rank."""
        if self.state == OPEN or state != FAULTED:
            self.words[_STATE_WORD] = state
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

    def record(self, rank: int, turn: int) -> int:
        """Return the offset of a rank's record for preflight number `turn`."""
        return self._records + (rank * 2 + turn % 2) * RECORD

    def poison(self, rank: int, turn: int) -> int:
        """Return the offset of a rank's error for preflight number `turn`."""
        return self._poisons + (rank * 2 + turn % 2) * POISON

    def ring(self, rank: int) -> None:
        """Wake a rank if it sleeps."""
        self._board.ring(self._processes[rank])

    def ring_all(self) -> None:
        """Wake every rank that sleeps."""
        self._board.ring_each(self._processes)

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
        self.turn = 0
        """How many this rank has reached."""
        self._digests: dict[bytes, int] = {}
        """Of records brought before: a graph has one or two for each of its operations."""
        self._digest = 0
        """Of what is brought to this turn; 0 if that is an error."""
        self._shown = [0, 0]
        """Digests of the records that are in shared memory."""
        self._beside = [b"", b""]
        """What stands beside them."""
        self._lines = [header.line(other) for other in range(header.world_size)]
        self._others = [line for line in self._lines if line != header.line(rank)]
        self._spread: Spread | None = None
        if header.world_size > cores.count() > 1:
            self._spread = Spread(header.words, [line + _CORE for line in self._lines], rank)

    def arrive(self, record: bytes, error: Error | None, beside: bytes = b"") -> None:
        """Show what this rank brings.

        Args:
            record: At most 255 bytes that must be the same on every rank that has any.
            error: What this rank has instead of a value.
            beside: What others may want to read besides; not compared, and cut to `BESIDE` bytes.
        """
        header, line = self._header, self._lines[self._rank]
        turn = self.turn = self.turn + 1
        side = turn & 1
        if error is not None:
            self._show_error(error, turn)
        else:
            self._digest = self._digests.get(record) or self._digest_of(record)
            if self._shown[side] != self._digest:
                self._show(b"\0" + record, turn)
            if beside and self._beside[side] is not beside:
                self._show_beside(beside[:BESIDE], turn)
                self._beside[side] = beside
        self._shown[side] = header.words[line + _DIGESTS + side] = self._digest
        if self._spread is not None and not turn % BETWEEN:
            self._spread.show(yields=self._waiter.yields(self._site))
        if not STORES_STAY_IN_ORDER:
            fence()
        header.words[line] = turn
        header.ring_all()

    def meet(
        self,
        *,
        waiter: Waiter | None = None,
        guard: Guard | None = None,
        deadline: float | None = None,
    ) -> list[bytes] | Error | None:
        """Wait for the other ranks, and compare.

        Args:
            waiter: The calling thread's waiting policy, where it is not the one given first.
            guard: Raises to end the wait; None ends it with the group.
            deadline: `time.monotonic` value to give up at, or None.

        Returns:
            None if all ranks bring the same; the first rank's `Error` if some have one (also when
            the records differ); all records, by rank, if they differ, each after one byte.

        Raises:
            ChannelClosedError: The group was ended while waiting.
            TimeoutError: Not all came by `deadline`.
        """
        header, turn = self._header, self.turn
        words = header.words
        waiter, guard = waiter or self._waiter, guard or header.guard
        for line in self._others:
            # One load, compared and waited on: a second one could already show the arrival.
            while (seen := words[line]) < turn:
                if not waiter.word(words, line, seen, guard, deadline, self._site):
                    raise TimeoutError
        if not STORES_STAY_IN_ORDER:
            fence()
        if self._spread is not None and not turn % BETWEEN:
            self._spread.look()
        digest, word = self._digest, _DIGESTS + (turn & 1)
        for line in self._others:
            if words[line + word] != digest:
                return self._compare(turn)
        return None if digest else self._compare(turn)

    def _digest_of(self, record: bytes) -> int:
        if len(self._digests) >= _MAX_DIGESTS:
            self._digests.clear()
        digest = self._digests[record] = _digest(record)
        return digest

    def _compare(self, turn: int) -> list[bytes] | Error | None:
        """Compare what the ranks have shown; see `meet`."""
        header, view = self._header, self._header.view
        places = [header.record(other, turn) for other in range(header.world_size)]
        records = [bytes(view[place : place + RECORD]) for place in places]
        for other, shown in enumerate(records):
            if shown[0]:
                return self._poison(other)
        return None if records.count(records[0]) == len(records) else records

    def _show(self, record: bytes, turn: int) -> None:
        place = self._header.record(self._rank, turn)
        self._header.view[place : place + RECORD] = record.ljust(RECORD, b"\0")

    def _show_error(self, error: Error, turn: int) -> None:
        self._digest = 0
        self._show(b"\1", turn)
        self._show_beside(_small(error), turn)
        self._beside[turn & 1] = b""

    def _show_beside(self, data: bytes, turn: int) -> None:
        view, place = self._header.view, self._header.poison(self._rank, turn)
        struct.pack_into("Q", view, place, len(data))
        view[place + 8 : place + 8 + len(data)] = data

    def beside(self, rank: int) -> bytes:
        """Return what a rank has shown beside its record, between `meet` and the next `arrive`."""
        view, place = self._header.view, self._header.poison(rank, self.turn)
        (length,) = struct.unpack_from("Q", view, place)
        return bytes(view[place + 8 : place + 8 + length])

    def _poison(self, rank: int) -> Error:
        error: Error = pickle.loads(self.beside(rank))
        return error.at(rank=rank)


def _digest(record: bytes) -> int:
    """Return 64 bits that stand for a record, never 0."""
    from hashlib import blake2b  # noqa: PLC0415  OpenSSL: the driver needs none of it

    return int.from_bytes(blake2b(record, digest_size=8).digest(), "little") or 1


def _small(error: Error) -> bytes:
    """Pickle `error` so that it fits: first without its cause, then with less and less text."""
    data, limit = pickle.dumps(error), _POISON_TEXT
    while len(data) > BESIDE:
        data, limit = pickle.dumps(error.shortened(limit)), limit // 2
    return data
