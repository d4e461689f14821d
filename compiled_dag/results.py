"""Results between the output channels and the refs that were given out for them.

A channel is read in order, refs are got in any order and by any thread. What is read on the way to
a later result is kept here; what nobody can ask for any more is passed over. All of it happens
under one lock, held only while messages are taken and never while somebody waits for one: a result
that is there is got although another thread waits for one that is not.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from compiled_dag.channel import layout as at
from compiled_dag.errors import CapacityExceededError, ChannelError
from compiled_dag.ref import PENDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.reader import Reader
    from compiled_dag.ref import CompiledDAGRef


class Results:
    """What was read off a graph's output channels and was not got yet."""

    def __init__(
        self,
        graph: GraphSegment,
        readers: Sequence[Reader],
        reader_of: Sequence[int | None],
        max_kept: int,
    ) -> None:
        """Begin with nothing.

        Args:
            graph: The graph's segment.
            readers: One per output channel.
            reader_of: For each output the index of its reader; None for one of the driver's own.
            max_kept: Results of one channel that may be kept for refs not got yet.
        """
        self.lock = threading.RLock()
        self.readers = tuple(readers)
        self._words = graph.words
        self._reader_of = tuple(reader_of)
        self._max_kept = max_kept
        shares = Counter(reader_of)
        self._shares = [shares[number] for number in range(len(readers))]
        """How many refs of an execution get the same result."""
        self._claimed: list[dict[int, list[None]]] = [{} for _ in readers]
        """One entry for each of these that has got or dropped it; only where there are several."""
        self._kept: list[dict[int, Any]] = [{} for _ in readers]
        self._dropped: list[set[int]] = [set() for _ in readers]
        self.own = tuple(
            readers[number] if number is not None and shares[number] == 1 else None
            for number in reader_of
        )
        """By output, the reader that serves it alone, if there is one."""

    def lock_by(self, deadline: float | None) -> bool:
        """Take the lock. Waits in slices, so that Ctrl-C gets through; False if it was late."""
        while not self.lock.acquire(timeout=0.05):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def fill(self, ref: CompiledDAGRef) -> bool:
        """Fill `ref` in if its result is there and the graph is up, or was read before it ended."""
        if ref._value is not PENDING:
            return True
        number, execution = self._reader_of[ref._output], ref._execution
        assert number is not None, "an output of the driver's own is filled in by execute"
        reader, kept = self.readers[number], self._kept[number]
        while reader.sequence <= execution and reader.ready() and self._is_open():
            self._take(number)
        if execution in kept:
            ref._value = kept[execution]
            if self._is_last_claim(number, execution):
                kept.pop(execution, None)
            return True
        if reader.sequence > execution:
            msg = f"the result of execution {execution} was lost: its get was interrupted"
            raise ChannelError(msg)
        return False

    def awaited(self, refs: Sequence[CompiledDAGRef]) -> list[tuple[Reader, int]]:
        """Return the readers that `refs` need, each with what its sequence word is until news."""
        numbers = {self._reader_of[ref._output] for ref in refs}
        readers = [self.readers[number] for number in numbers if number is not None]
        return [(reader, reader.sequence) for reader in readers]

    def fetched(self, *, move: bool) -> int:
        """Return how many executions are off the channels, after passing over what was dropped.

        Args:
            move: Take also what is there of the next execution, to make room.
        """
        for number, reader in enumerate(self.readers):
            dropped = self._dropped[number]
            while reader.sequence in dropped and reader.ready():
                dropped.discard(reader.sequence)
                reader.skip()
        oldest = min(reader.sequence for reader in self.readers)
        if not move:
            return oldest
        for number, reader in enumerate(self.readers):
            if reader.sequence == oldest and reader.ready():
                self._take(number)
        return min(reader.sequence for reader in self.readers)

    def awaited_after(self, fetched: int) -> list[tuple[Reader, int]]:
        """Return the readers that hold up the execution after the first `fetched`."""
        return [(reader, fetched) for reader in self.readers if reader.sequence == fetched]

    def is_published(self, ref: CompiledDAGRef) -> bool:
        """Tell whether the result of `ref` has arrived."""
        number = self._reader_of[ref._output]
        if number is None:
            return True
        reader = self.readers[number]
        return reader.words[reader.sequence_word] > ref._execution

    def forget(self, execution: int, output: int) -> None:
        """Drop the result of a ref that is gone.

        Called by the garbage collector, at any point of any thread: it takes no lock, and what it
        does between two lines of `_take` comes right, because both mark first and look second.
        """
        number = self._reader_of[output]
        if number is None or not self._is_last_claim(number, execution):
            return
        dropped = self._dropped[number]
        dropped.add(execution)
        was_kept = self._kept[number].pop(execution, PENDING) is not PENDING
        if was_kept or self.readers[number].sequence > execution:
            dropped.discard(execution)

    def forget_execution(self, execution: int) -> None:
        """Drop all results of an execution that has no refs."""
        for dropped in self._dropped:
            dropped.add(execution)

    def _is_open(self) -> bool:
        return self._words[at.STATE_WORD] == at.OPEN

    def _is_last_claim(self, number: int, execution: int) -> bool:
        """Count one more ref that needs the result no longer; tells whether it was the last."""
        if self._shares[number] == 1:
            return True
        claims = self._claimed[number].setdefault(execution, [])
        claims.append(None)
        if len(claims) < self._shares[number]:
            return False
        self._claimed[number].pop(execution, None)
        return True

    def _take(self, number: int) -> None:
        """Take the next message of a channel, which is there, into what is kept."""
        reader, kept = self.readers[number], self._kept[number]
        execution = reader.sequence
        dropped = self._dropped[number]
        if len(dropped) and execution in dropped:
            dropped.discard(execution)
            reader.skip()
            return
        if len(kept) > self._max_kept:
            msg = (
                f"{len(kept)} results of {reader.spec.label} are kept for refs that were not got, "
                f"from execution {min(list(kept))} on, and _max_buffered_results={self._max_kept}. "
                "Get or drop older refs, or raise the limit"
            )
            raise CapacityExceededError(msg)
        if execution not in kept:  # it is there if an interrupt came between these two lines
            kept[execution] = reader.peek()
        if execution in dropped:  # since the look above
            dropped.discard(execution)
            kept.pop(execution, None)
        reader.advance()
