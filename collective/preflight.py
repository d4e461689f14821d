"""Who has arrived with what, before a backend is touched: one rank's side of it.

A rank writes its record, then its count, and goes on once all counts have reached its own (see
`collective.header`). Most operations bring what the last but one did: then its record is there
already, and comparing takes one word of 64 bits per rank (records that differ have the same digest
once in 2^64). Only where digests differ are the records themselves looked at.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Final

from collective.header import (
    BESIDE,
    CORE,
    DIGESTS,
    RECORD,
    GroupHeader,
    show_bytes,
    shown_bytes,
    small_error,
)
from collective.spread import BETWEEN, Spread
from compiled_dag.shm import cores
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.waiter import Guard, Site, Waiter

if TYPE_CHECKING:
    from compiled_dag.outcome import Error

_MAX_DIGESTS: Final = 256


class Preflight:
    """One rank's side of the comparison before each operation."""

    def __init__(self, header: GroupHeader, rank: int, waiter: Waiter) -> None:
        self._header = header
        self._rank = rank
        self._waiter = waiter
        self.site = Site()
        """The meetings, as a place that waits."""
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
        self._ring = header.bell_of([r for r in range(header.world_size) if r != rank])
        self._spread: Spread | None = None
        if header.world_size > cores.count() > 1:
            self._spread = Spread(header.words, [line + CORE for line in self._lines], rank)

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
        self._shown[side] = header.words[line + DIGESTS + side] = self._digest
        if self._spread is not None and not turn % BETWEEN:
            self._spread.show(yields=self._waiter.yields(self.site))
        if not STORES_STAY_IN_ORDER:
            fence()
        header.words[line] = turn
        self._wake(turn)

    def agree(self, record: bytes) -> list[bytes] | Error | None:
        """Arrive with `record`, and meet: the same as both, but at once where nothing is new."""
        turn = self.turn + 1
        digest = self._shown[turn & 1]
        looks = self._spread is not None and not turn % BETWEEN
        if looks or digest != self._digests.get(record):
            self.arrive(record, None)
            return self.meet()
        header = self._header
        words = header.words
        if not STORES_STAY_IN_ORDER:
            fence()
        self.turn, self._digest = turn, digest
        words[self._lines[self._rank]] = turn
        self._wake(turn)
        for line in self._others:
            while (seen := words[line]) < turn:
                self._waiter.word(words, line, seen, header.guard, None, self.site)
        if not STORES_STAY_IN_ORDER:
            fence()
        word = DIGESTS + (turn & 1)
        for line in self._others:
            if words[line + word] != digest:
                return self._compare(turn)
        return None

    def _wake(self, turn: int) -> None:
        """Wake the others if all have come; until then nobody can go on."""
        fence()
        words = self._header.words
        for line in self._others:
            if words[line] < turn:
                return
        self._ring()

    def take_back(self, turn: int) -> bool:
        """Forget an arrival that was broken off before others could see it.

        Args:
            turn: How many this rank had reached before it.

        Returns:
            False if they have seen it.
        """
        if self._header.words[self._lines[self._rank]] != turn:
            return False
        self.turn = turn
        return True

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
                if not waiter.word(words, line, seen, guard, deadline, self.site):
                    raise TimeoutError
        if not STORES_STAY_IN_ORDER:
            fence()
        if self._spread is not None and not turn % BETWEEN:
            self._spread.look()
        digest, word = self._digest, DIGESTS + (turn & 1)
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
        self._show_beside(small_error(error), turn)
        self._beside[turn & 1] = b""

    def _show_beside(self, data: bytes, turn: int) -> None:
        show_bytes(self._header.view, self._header.poison(self._rank, turn), data)

    def beside(self, rank: int) -> bytes:
        """Return what a rank has shown beside its record, between `meet` and the next `arrive`."""
        return shown_bytes(self._header.view, self._header.poison(rank, self.turn))

    def _poison(self, rank: int) -> Error:
        error: Error = pickle.loads(self.beside(rank))
        return error.at(rank=rank)


def _digest(record: bytes) -> int:
    """Return 64 bits that stand for a record, never 0."""
    from hashlib import blake2b  # noqa: PLC0415  OpenSSL: the driver needs none of it

    return int.from_bytes(blake2b(record, digest_size=8).digest(), "little") or 1
