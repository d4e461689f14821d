"""An actor's recording: a second set of closures, which note when each step was done.

An execution that is not recorded runs the plain closures and pays for one look at a word, about
50 ns. One that is pays about 0.2 us a step and 0.5 us for its row, here and in the driver together.
The driver says which are: all of them while that is under 2 % of the time between two executions,
one in 16 where they follow faster (`compiled_dag.trace.log`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from compiled_dag.channel.layout import ROWS
from compiled_dag.outcome import Error
from compiled_dag.program import Compute, Read, Release
from compiled_dag.trace.ring import BEGIN, FAILED_SHIFT, TAG, Columns, Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.reader import Reader
    from compiled_dag.program import Step

Run: TypeAlias = "Callable[[list[Any]], None]"


class Recorder:
    """The writer of one actor's ring."""

    def __init__(self, graph: GraphSegment, participant: int) -> None:
        self._graph = graph
        self._participant = participant
        self._words, self._view = graph.words, graph.view
        self._rows_word = graph.layout.participant(participant) // 8 + ROWS
        self._count = 0
        self._is_open = False
        self._failed = 0
        """Number of the step whose method raised last."""
        self._stamps: list[int] = []
        self._runs: list[Run] = []

    def bind(self, steps: Sequence[Step], runs: Sequence[Run], readers: Sequence[Reader]) -> None:
        """Make the second set of closures.

        Args:
            steps: The program.
            runs: One closure per step.
            readers: One per `Read`, in order.
        """
        columns = Columns.of(steps)
        ring = Ring.of(self._graph.layout, self._participant, columns)
        self._stamps = [0] * columns.width
        self._first, self._rows, self._row_bytes = ring.first, ring.rows or 1, ring.row_bytes
        self._write = ring.writer()
        reading = iter(readers)
        self._runs = []
        for index, (step, run) in enumerate(zip(steps, runs, strict=True)):
            done = columns.done[index]
            match step:
                case Read():
                    run_ = self._read(run, next(reading), done)
                case Compute(results=results):
                    before = columns.before(index)
                    run_ = self._compute(run, results[0], before, done, index + 1)
                case Release():
                    run_ = run
                case _:
                    run_ = self._other(run, done)
            self._runs.append(run_)

    def open(self, execution: int) -> list[Run]:
        """Begin a row; returns the closures that fill it."""
        self._is_open, self._failed = True, 0
        self._stamps[TAG] = execution + 1
        self._stamps[BEGIN] = time.monotonic_ns()
        return self._runs

    def failed(self, number: int) -> None:
        """Note that the method of step `number` (from 1) raised."""
        if self._is_open:
            if not self._failed:
                self._stamps[TAG] += number << FAILED_SHIFT
            self._failed = number

    def close(self) -> None:
        """Show the row, if one is open, whole or as far as it came."""
        if self._is_open:
            self._is_open = False
            place = self._first + self._count % self._rows * self._row_bytes
            self._write(self._view, place, *self._stamps)
            self._count += 1
            self._words[self._rows_word] = self._count

    def drop(self) -> None:
        """Let go of the closures, and with them of the graph's memory."""
        self._runs = []

    def _read(self, inner: Run, reader: Reader, done: int) -> Run:
        stamps, clock, arrived = self._stamps, time.monotonic_ns, done - 1
        reader.arrived = arrived

        def run(slots: list[Any]) -> None:
            stamps[arrived] = 0
            reader.stamps = stamps  # a value that takes some time to take notes when that begins
            try:
                inner(slots)
            finally:
                reader.stamps = None
            stamps[done] = now = clock()
            stamps[arrived] = stamps[arrived] or now

        return run

    def _compute(self, inner: Run, target: int, before: int, done: int, number: int) -> Run:
        stamps, clock = self._stamps, time.monotonic_ns

        def run(slots: list[Any]) -> None:
            inner(slots)
            skipped = slots[target].__class__ is Error and self._failed != number
            stamps[done] = stamps[before] if skipped else clock()

        return run

    def _other(self, inner: Run, done: int) -> Run:
        stamps, clock = self._stamps, time.monotonic_ns

        def run(slots: list[Any]) -> None:
            inner(slots)
            stamps[done] = clock()

        return run
