"""A ring of rows in the graph's segment: what one actor did in its last executions.

A program runs the same steps every time, so a row holds no names, only times; what its columns mean
is known at compile::

    u64 tag      execution + 1, and the number of the first step whose method raised << 44
    u64 begin    of the execution, when its first message was there
    per step     Read: arrived, done; Release: nothing; all others: done

All times are of the machine's monotonic clock, in nanoseconds. A step begins where the one before
it was done. A skipped method takes exactly no time. An execution that was broken off is kept as far
as it came: what follows is older than its begin. What an actor does just now is in its progress
words, not here.

Nobody stops for a reader. The writer counts its rows, each after it was written: a reader looks at
the count, copies the ring, and looks again. Rows that the first look does not count were perhaps
not there yet, rows that the second one lets be overwritten are perhaps torn; both are dropped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np

from compiled_dag.channel.layout import ROWS, TRACE_BYTES, Layout
from compiled_dag.program import Read, Release
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.program import Step

TAG, BEGIN, _FIRST = 0, 1, 2
FAILED_SHIFT: Final = 44
_EXECUTION_MASK: Final = (1 << FAILED_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the stamps of a program's steps are in a row."""

    done: tuple[int, ...]
    """By step, the column that says when it was done; a `Read` arrived in the one before. A
    `Release` repeats that of the step before it."""
    width: int

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Columns:
        """Lay out the row of a program."""
        done = tuple(accumulate(map(_columns_of, steps), initial=_FIRST - 1))
        return cls(done[1:], done[-1] + 1)

    def before(self, step: int) -> int:
        """Return the column that says when step number `step` (from 0) began."""
        return self.done[step - 1] if step else BEGIN


def _columns_of(step: Step) -> int:
    if isinstance(step, Read):
        return 2
    return 0 if isinstance(step, Release) else 1


@dataclass(frozen=True, slots=True)
class Ring:
    """Where the rows of one participant are in the segment."""

    first: int
    rows: int
    """0 for a program of more than 8,000 steps, which is not recorded."""
    row_bytes: int

    @classmethod
    def of(cls, layout: Layout, participant: int, columns: Columns) -> Ring:
        """Place the rows of `participant`."""
        row_bytes = columns.width * 8
        return cls(layout.trace(participant), TRACE_BYTES // row_bytes, row_bytes)

    def writer(self) -> Callable[..., None]:
        """Return what copies a row (its stamps, as arguments) to an offset of the segment."""
        if not self.rows:
            return lambda *_: None
        return struct.Struct(f"{self.row_bytes // 8}Q").pack_into


@dataclass(frozen=True, slots=True)
class Row:
    """One execution of one participant."""

    execution: int
    failed: int
    """Number of the step whose method raised, or 0."""
    stamps: tuple[int, ...]
    """By column. In an execution that was broken off the last ones are older than its begin."""


def read_rows(graph: GraphSegment, participant: int, columns: Columns) -> list[Row]:
    """Return the last executions of an actor, the oldest first; the actor may be at work."""
    ring = Ring.of(graph.layout, participant, columns)
    if not ring.rows:
        return []
    word = graph.layout.participant(participant) // 8 + ROWS
    before = graph.words[word]
    if not STORES_STAY_IN_ORDER:
        fence()
    data = bytes(graph.view[ring.first : ring.first + ring.rows * ring.row_bytes])
    if not STORES_STAY_IN_ORDER:
        fence()
    after = graph.words[word]
    copied = np.frombuffer(data, np.uint64).reshape(ring.rows, columns.width).tolist()
    return valid_rows(copied, before, after)


def valid_rows(copied: Sequence[Sequence[int]], before: int, after: int) -> list[Row]:
    """Return the whole rows of a copied ring.

    Args:
        copied: The rows, by place in the ring.
        before: How many rows had been written before the copy was made.
        after: How many had after it.
    """
    # The writer may be in the middle of row `after`. One row more at either end where the machine
    # may show the count before the row.
    margin = 0 if STORES_STAY_IN_ORDER else 1
    oldest, end = max(after + 1 - len(copied) + margin, 0), before - margin
    return [_row(copied[number % len(copied)]) for number in range(oldest, end)]


def _row(stamps: Sequence[int]) -> Row:
    tag = stamps[TAG]
    return Row((tag & _EXECUTION_MASK) - 1, tag >> FAILED_SHIFT, tuple(stamps))
