"""From one rank to another: messages through shared memory, for `send` and `recv`.

All ranks are on one machine, so a message takes two copies and no socket, on every backend. For
each ordered pair of ranks there is, in one sparse memfd per group::

    page 0      +0     u64 messages begun by the sender, u64 chunks written   | the sender writes
                +128   u64 messages begun by the receiver, u64 chunks read    | the receiver writes
                +256   2 x RECORD   what the sender brings to this and the previous message
                +1024  2 x RECORD   what the receiver expects
                +2048  1 KiB        why one of the two cannot take part; its record begins with 1
    then        CHUNKS x CHUNK_BYTES, used in turn

A message begins when both ends have shown their records: they are compared before any byte moves,
so `send` waits for its `recv`, as those of gloo and NCCL do. Each word has one writer; both ends
are never more than one message apart, so two records each are enough.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from collective.header import RECORD
from compiled_dag.shm.futex import fence
from compiled_dag.shm.segment import PAGE, round_up
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from collective.header import GroupHeader
    from compiled_dag.shm.segment import Segment
    from compiled_dag.shm.waiter import Guard, Waiter

CHUNK_BYTES: Final = 256 * 1024
CHUNKS: Final = 4
_HEAD: Final = round_up(4096, PAGE)
_SIZE: Final = round_up(_HEAD + CHUNKS * CHUNK_BYTES, PAGE)
_SENDER, _RECEIVER = 0, 128 // 8
_RECORDS: Final = (256, 1024)
_REASON: Final = 2048
_REASON_BYTES: Final = 1024


def allocate_pairs(segment: Segment, world_size: int) -> None:
    """Have an empty segment be the memory between all ranks of a group."""
    segment.allocate("compiled-dag-pairs", world_size * world_size * _SIZE)


class LeftError(Exception):
    """The other end has left the group."""


class RefusedError(Exception):
    """The other end cannot take part; the text says why."""


class End:
    """One end of the way from one rank to another. One thread at a time."""

    def __init__(
        self, segment: Segment, header: GroupHeader, source: int, target: int, *, sends: bool
    ) -> None:
        """Map it.

        Args:
            segment: From `allocate_pairs`.
            header: The group's header.
            source: The rank that sends.
            target: The rank that receives.
            sends: Whether this process is the source.
        """
        place = (source * header.world_size + target) * _SIZE
        view = segment.map(place, _SIZE).view()
        self._words = view.cast("Q")
        self._view = view
        self._sends = sends
        self._own = _SENDER if sends else _RECEIVER
        self._other = _RECEIVER if sends else _SENDER
        peer = target if sends else source
        self._wake = partial(header.ring, peer)
        self._has_left = partial(header.has_left, peer)
        self._site = Site()
        self._chunks: Any = None

    def meet(
        self, record: bytes, reason: str, waiter: Waiter, guard: Guard, deadline: float
    ) -> tuple[bytes, bytes] | None:
        """Show what this end brings, and compare.

        Args:
            record: At most 255 bytes.
            reason: Why this end cannot take part; empty if it can.
            waiter: The calling thread's waiting policy.
            guard: Raises to end the wait.
            deadline: `time.monotonic` value to give up at.

        Returns:
            None if both ends are the same; the sender's and the receiver's record otherwise, each
            after one byte.

        Raises:
            RefusedError: The other end cannot take part.
            LeftError: It has left the group.
            TimeoutError: It did not come.
        """
        words, view = self._words, self._view
        turn = words[self._own] + 1
        mine = ((b"\1" if reason else b"\0") + record).ljust(RECORD, b"\0")
        if reason:
            text = reason.encode()[: _REASON_BYTES - 1] + b"\0"
            view[_REASON : _REASON + len(text)] = text
        places = [start + turn % 2 * RECORD for start in _RECORDS]
        place = places[not self._sends]
        view[place : place + RECORD] = mine
        fence()
        words[self._own] = turn
        self._wake()
        self._wait(lambda: words[self._other] >= turn, waiter, guard, deadline)
        fence()
        shown = [bytes(view[place : place + RECORD]) for place in places]
        if shown[self._sends][0]:
            text = bytes(view[_REASON : _REASON + _REASON_BYTES]).partition(b"\0")[0]
            raise RefusedError(text.decode(errors="replace"))
        return None if shown[0] == shown[1] else (shown[0], shown[1])

    def move(self, data: torch.Tensor, waiter: Waiter, guard: Guard, deadline: float) -> None:
        """Send or receive contiguous bytes in host memory, after `meet`; both ends have as many.

        Raises:
            LeftError: The other end has left the group on the way.
            TimeoutError: It has stopped.
        """
        words, own, other = self._words, self._own + 1, self._other + 1
        count = words[own]
        # The sender may be ahead by all chunks, the receiver by none.
        ahead = CHUNKS - 1 if self._sends else -1
        for start in range(0, data.numel(), CHUNK_BYTES):
            while words[other] + ahead < count:
                self._wait(lambda: words[other] + ahead >= count, waiter, guard, deadline)  # noqa: B023  called at once
            fence()
            part = data[start : start + CHUNK_BYTES]
            chunk = self._chunk(count % CHUNKS)[: part.numel()]
            if self._sends:
                chunk.copy_(part)
            else:
                part.copy_(chunk)
            fence()
            count += 1
            words[own] = count
            self._wake()

    def _chunk(self, number: int) -> torch.Tensor:
        if self._chunks is None:
            import torch  # noqa: PLC0415  there is a tensor

            memory = torch.frombuffer(self._view, dtype=torch.uint8, offset=_HEAD)
            self._chunks = memory[: CHUNKS * CHUNK_BYTES].view(CHUNKS, CHUNK_BYTES)
        found: torch.Tensor = self._chunks[number]
        return found

    def _wait(
        self, ready: Callable[[], bool], waiter: Waiter, guard: Guard, deadline: float
    ) -> None:
        def check() -> None:
            guard()
            # In this order: what it did before it left counts.
            if self._has_left() and not ready():
                raise LeftError

        if not waiter.until(ready, check, deadline, self._site):
            raise TimeoutError
