"""Where the words and handles of ranks are that share a GPU. No torch: the driver asks.

In the group's memory, behind its header (`collective.header`)::

    per rank, PER_RANK bytes
      +0       u64 phase of joining that it has reached
      +8       u64 its process id
      +16      u64 1: it opens, or has opened, what others export
      +24      u64 1: it has nothing of others open any more, and opens nothing
      +32      2 x u64 by side: the generation of its memory in which it has laid something
      +48      u64 bytes of GPU memory that it has taken for what it lays
      +64      2 x 64: handles of `ready`, by side
      +192     2 x 64: handles of `done`, by side
      +320     text: the UUID of its GPU
      +512     text: what was refused, here
      +1536    text: what all ranks have agreed is to be said of that
      +2560    48 x 128: generations: u64 capacity of a side; at +64 the handle of the memory
    then, per rank and rank
               u64 the first generation of the second that the first has open or may still open

Every word has one writer, its rank. A text is a u64 of its length, and UTF-8.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from compiled_dag.shm.segment import round_up

if TYPE_CHECKING:
    from collective.header import GroupHeader

PHASE, PID, IMPORTED, ENDED, USED, TAKEN = 0, 1, 2, 3, 4, 6
"""Words of a rank."""
READY, DONE = 64, 192
"""Where the handles of events begin."""
UUID: Final = (320, 192)
REFUSAL: Final = (512, 1024)
VERDICT: Final = (1536, 1024)
"""Texts: where they are, and how long at most, with their length."""
HANDLE: Final = 64
GENERATIONS: Final = 48
"""Each is twice as large as the one before: there are never more."""
_ROWS, _ROW = 2560, 128
PER_RANK: Final = _ROWS + GENERATIONS * _ROW


def memory_bytes(world_size: int) -> int:
    """Return how much of the group's memory the words take."""
    return round_up(world_size * (PER_RANK + 8 * world_size))


class Area:
    """A mapping of them."""

    def __init__(self, header: GroupHeader) -> None:
        """Map the words of the group that has this header."""
        self.world_size = header.world_size
        nbytes = memory_bytes(header.world_size)
        self.view = header.segment.map(header.end_of_log, nbytes).view()
        self.words = self.view.cast("Q")

    @staticmethod
    def line(rank: int) -> int:
        """Return the index of a rank's first word."""
        return rank * PER_RANK // 8

    def closed(self, rank: int, owner: int) -> int:
        """Return the index of the word that says what `rank` has open of `owner`."""
        return self.world_size * PER_RANK // 8 + rank * self.world_size + owner

    def handle(self, rank: int, start: int, number: int) -> bytes:
        """Return a handle of an event: `start` is READY or DONE, `number` the side."""
        place = rank * PER_RANK + start + number * HANDLE
        return bytes(self.view[place : place + HANDLE])

    def show_handle(self, rank: int, start: int, number: int, handle: bytes) -> None:
        """Write one."""
        place = rank * PER_RANK + start + number * HANDLE
        self.view[place : place + HANDLE] = handle

    def generation(self, rank: int, number: int) -> tuple[int, bytes]:
        """Return the capacity of a side of a rank's memory, and the memory's handle."""
        place = self._row(rank, number)
        handle = bytes(self.view[place + HANDLE : place + 2 * HANDLE])
        return self.words[place // 8], handle

    def show_generation(self, rank: int, number: int, capacity: int, handle: bytes) -> None:
        """Write them."""
        place = self._row(rank, number)
        self.words[place // 8] = capacity
        self.view[place + HANDLE : place + 2 * HANDLE] = handle

    def text(self, rank: int, place: tuple[int, int]) -> str:
        """Return a rank's UUID, REFUSAL or VERDICT."""
        start = rank * PER_RANK + place[0]
        (length,) = struct.unpack_from("Q", self.view, start)
        return bytes(self.view[start + 8 : start + 8 + length]).decode(errors="replace")

    def show_text(self, rank: int, place: tuple[int, int], text: str) -> None:
        """Write one, cut to what there is room for."""
        start, data = rank * PER_RANK + place[0], text.encode()[: place[1] - 8]
        self.view[start + 8 : start + 8 + len(data)] = data
        struct.pack_into("Q", self.view, start, len(data))

    @property
    def gpu_bytes(self) -> tuple[int, ...]:
        """How much GPU memory each rank has taken."""
        return tuple(self.words[self.line(rank) + TAKEN] for rank in range(self.world_size))

    @property
    def refusal(self) -> str:
        """Why the ranks that have joined do not share their GPU; empty if they do."""
        return self.text(0, VERDICT)

    @staticmethod
    def _row(rank: int, number: int) -> int:
        assert number < GENERATIONS, "no memory is that large"
        return rank * PER_RANK + _ROWS + number * _ROW
