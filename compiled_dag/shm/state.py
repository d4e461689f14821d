"""The state word of memory on which several processes wait: a graph's, a group's.

It is on a line of its own, at the same place in every such segment, so that a segment can be marked
by who knows nothing else of it: what a process drives is broken for it when it dies.
"""

from __future__ import annotations

from typing import Final

from compiled_dag.shm.segment import PAGE, Mapping

STATE_WORD: Final = 16
"""Index among the segment's u64 words."""
OPEN, CLOSED, BROKEN = 1, 2, 3


def mark_broken(fd: int) -> None:
    """Mark a segment broken if it is open; who waits on it has to be woken afterwards."""
    words = Mapping(fd, 0, PAGE).view().cast("Q")
    if words[STATE_WORD] not in (CLOSED, BROKEN):
        words[STATE_WORD] = BROKEN
