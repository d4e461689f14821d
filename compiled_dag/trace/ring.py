"""A ring of rows in the graph's segment: what one actor did in its last executions.

A program runs the same steps every time, so a row holds no names, only times; what its columns mean
is known at compile::

    u64 tag          execution + 1, and the number of a step whose method raised << 44
    u64 begin        when the execution before this one ended
    per step
      Read             since (only if it waited), arrived (if it waited, or takes some time)
      Compute          begin (not if it was skipped), done
      CollectiveStart  begin, done
      Write, CollectiveWait   done
      Release          nothing

All times are of the machine's monotonic clock, in nanoseconds. What is not noted this time keeps
its value of an earlier execution, which is not after `begin`. A step ends where the next time was
noted, and a `Read` of a number that was there takes too little to be noted at all.

What it costs (Python 3.11, 2.1 GHz; the clock takes 43 ns of each): a method 5 ns before it and 48
after it, where somebody waits for the result; after the result is published 48 ns a write and
250 ns an execution. Hence the list: a store into shared memory takes 35 ns, and into an array, too.
Were each step stamped at both ends in shared memory, a chain of one would be 8 % slower.

The row is copied into the ring when the execution has ended. One that was broken off (the graph
ends, the actor leaves) is copied as far as it came. What an actor does just now is in its progress
words, not here.

Nobody stops for a reader. The writer's execution word moves after each row: a reader looks at it,
copies the ring, and looks again. Rows that the first look does not count were perhaps not there
yet, rows that the second one lets be overwritten are perhaps torn; both are dropped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np

from compiled_dag.channel.layout import EXECUTION, OPEN, TRACE_BYTES, Layout
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Read,
    Release,
    Write,
)
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

    last: tuple[int, ...]
    """By step, its last column; a `Release` repeats that of the step before it."""
    end: int
    """The last one that every execution stamps."""
    width: int

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Columns:
        """Lay out the row of a program."""
        last = tuple(accumulate(map(_columns_of, steps), initial=_FIRST - 1))[1:]
        work = [column for step, column in zip(steps, last, strict=True) if _is_work(step)]
        return cls(last, max(work, default=BEGIN), max(last, default=BEGIN) + 1)

    def row(self) -> list[int]:
        """Return a row with nothing in it."""
        return [0] * self.width


def _is_work(step: Step) -> bool:
    return not isinstance(step, (Read, Release))


def _columns_of(step: Step) -> int:
    match step:
        case Read() | Compute() | CollectiveStart():
            return 2
        case Write() | CollectiveWait():
            return 1
        case Release():
            return 0


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
    """By column; what is not after `begin` is of an earlier execution."""

    def fresh(self) -> list[int]:
        """Return the stamps with 0 for what is no time of this execution."""
        begin = self.stamps[BEGIN]
        stamps = [stamp if stamp > begin else 0 for stamp in self.stamps]
        stamps[TAG] = 0
        return stamps


def read_rows(graph: GraphSegment, participant: int, columns: Columns) -> list[Row]:
    """Return the last executions of an actor, the oldest first; the actor may be at work."""
    ring = Ring.of(graph.layout, participant, columns)
    if not ring.rows:
        return []
    word = graph.layout.participant(participant) // 8 + EXECUTION
    ended = graph.state != OPEN  # then the last row may be of an execution that was broken off
    before = graph.words[word]
    data = bytes(graph.view[ring.first : ring.first + ring.rows * ring.row_bytes])
    if not STORES_STAY_IN_ORDER:
        fence()
    after = graph.words[word]
    copied = np.frombuffer(data, np.uint64).reshape(ring.rows, columns.width).tolist()
    return valid_rows(copied, before + ended, after)


def valid_rows(copied: Sequence[Sequence[int]], before: int, after: int) -> list[Row]:
    """Return the whole rows of a copied ring.

    Args:
        copied: The rows, by place in the ring.
        before: How many rows there were before the copy was made.
        after: How many there were after it.
    """
    # The writer may be in the middle of row `after`. One row more at either end where the machine
    # may show the word before the row.
    margin = 0 if STORES_STAY_IN_ORDER else 1
    oldest, end = max(after + 1 - len(copied) + margin, 0), before - margin
    rows = []
    for place, stamps in enumerate(copied):
        execution = (stamps[TAG] & _EXECUTION_MASK) - 1
        if oldest <= execution < end and execution % len(copied) == place:
            rows.append(Row(execution, stamps[TAG] >> FAILED_SHIFT, tuple(stamps)))
    return sorted(rows, key=lambda row: row.execution)
