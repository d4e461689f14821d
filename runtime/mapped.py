"""Memory of large values as this process sees it: mapped once, used for one value after another.

To map a megabyte, touch its pages and unmap it takes 110 us, five times as long as to copy it. The
memory itself is used again and again (`runtime.warm`), so its last few mappings are kept here.

A segment is known by its inode, whose number no other has while a mapping keeps it.
A mapping that is kept holds no memory: `warm` empties a segment before it lets go of it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from compiled_dag.shm.segment import Mapping

MOST_EACH_BYTES: Final = 16 << 20
"""Mappings of larger segments are not kept."""
_MOST: Final = 16
_MOST_BYTES: Final = 64 << 20


class Mappings:
    """The kept ones of a process. Any thread may use it: containers are changed by single calls."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kept: dict[int, Mapping] = {}
        """By inode; the one used last is at the end."""

    def of(self, fd: int, nbytes: int) -> Mapping:
        """Return all of a segment, mapped.

        Args:
            fd: The segment.
            nbytes: How much of it is about to be used: faulted in at once if it was not mapped.

        Raises:
            OSError: The kernel refused (address space, number of mappings).
        """
        status = os.fstat(fd)
        if status.st_size > MOST_EACH_BYTES:
            return Mapping(fd, 0, status.st_size)
        found = self._kept.pop(status.st_ino, None)
        if found is None:
            found = Mapping(fd, 0, status.st_size)
            found.populate(0, nbytes)
        self._kept[status.st_ino] = found
        self._trim()
        return found

    def _trim(self) -> None:
        kept = self._kept
        while len(kept) > _MOST or sum(m.size for m in list(kept.values())) > _MOST_BYTES:
            with suppress(StopIteration, RuntimeError, KeyError):  # another thread changes it, too
                del kept[next(iter(kept))]

    def forget(self, inode: int) -> None:
        """Do not keep the mapping of a segment that is about to go. Safe in finalizers."""
        self._kept.pop(inode, None)

    def clear(self) -> None:
        """Keep none: the session is over."""
        self._kept.clear()

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)


MAPPINGS: Final = Mappings()
"""Those of this process."""
