"""Where everything is in the part of a channel's control area that a device ring uses.

Pure arithmetic; `compiled_dag.cuda.ring` says what the words mean and who waits for which.

::

    with N slots and R readers
      +0       writer's line       u64 ended (its imports are closed), u64 imported (of readers'
                                   events), u64 generation
      +128     generations         48 x 128 bytes: u64 capacity of a slot; at +64 the handle of
                                   the ring's memory
      ...      ready               N x 64: handles of the writer's events
      then R times
        +0     reader's line       u64 freed, u64 opened, u64 closed, u64 ended, u64 kept
        +128   free                N x 64: handles of the reader's events
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LINE: Final = 128
HANDLE: Final = 64
GENERATIONS: Final = 48
MOST_SLOTS: Final = 4
"""Device memory is dear: a writer that is this far ahead of a reader waits for it."""

# writer's line, u64 indices
WRITER_ENDED, IMPORTED, GENERATION = 0, 1, 2

# a generation's row, u64 indices, and bytes from its start
CAPACITY: Final = 0
MEMORY: Final = 64

# reader's line, u64 indices
FREED, OPENED, CLOSED, READER_ENDED, KEPT = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class RingArea:
    """Byte offsets in one channel's device area."""

    start: int
    slots: int
    readers: int

    @property
    def size(self) -> int:
        """Of all of it."""
        return self.reader(self.readers) - self.start

    def generation(self, number: int) -> int:
        """Return where the row of a generation is."""
        return self.start + LINE + number * LINE

    def ready(self, slot: int) -> int:
        """Return where the handle of the writer's event of a slot is."""
        return self.generation(GENERATIONS) + slot * HANDLE

    def reader(self, position: int) -> int:
        """Return where the line of the reader at `position` is."""
        return self.ready(self.slots) + position * (LINE + self.slots * HANDLE)

    def free(self, position: int, slot: int) -> int:
        """Return where the handle of a reader's event of a slot is."""
        return self.reader(position) + LINE + slot * HANDLE


def ring_slots(depth: int) -> int:
    """Return the slots of a device ring for so many executions in flight."""
    return min(depth, MOST_SLOTS)
