"""Results between the output channels and the refs that were given out for them.

A channel is read in order, refs are got in any order and by any thread. What is read on the way to
a later result is kept here; what nobody can ask for any more is passed over. All of it happens
under one lock, held only while messages are taken and never while somebody waits for one: a result
that is there is got although another thread waits for one that is not.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from compiled_dag.attempts import attempts
from compiled_dag.channel import layout as at
from compiled_dag.errors import CapacityExceededError, ChannelError
from compiled_dag.interrupts import whole_if_returns_are_checked
from compiled_dag.ref import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.reader import Reader
    from compiled_dag.ref import CompiledDAGRef
    from compiled_dag.trace.log import Log

_PATIENT_S: Final = 0.05
"""How long one attempt waits for whoever takes messages; then its deadline is looked at."""


class News:
    """Wakes those who wait for something that no message announces: room, or a dropped result."""

    def __init__(
        self, ring: Callable[[], None], call_soon: Callable[[Callable[[], object]], None]
    ) -> None:
        """Begin.

        Args:
            ring: Wakes the threads of this process that wait.
            call_soon: Has another thread call a function; safe in finalizers.
        """
        self._ring = ring
        self._call_soon = call_soon
        self._counts = itertools.count(1)
        self.count = 0
        """Changes with every piece of news: compare it with what it was."""

    def tell(self) -> None:
        """Say that something changed."""
        self.count = next(self._counts)
        self._ring()

    def tell_soon(self) -> None:
        """Say it from a finalizer."""
        self._call_soon(self.tell)


class Room(NamedTuple):
    """How many executions are fetched, and what may change that."""

    fetched: int
    awaited: tuple[tuple[Reader, int], ...]
    """Readers whose next message would, each with what its sequence word is until then."""
    stuck: tuple[tuple[Reader, int], ...]
    """Readers whose next message is there but may not be kept, each with its number."""
    news: int
    """What `News.count` was before looking."""


class Results:
    """What was read off a graph's output channels and was not got yet."""

    def __init__(
        self,
        graph: GraphSegment,
        readers: Sequence[Reader],
        reader_of: Sequence[int | None],
        max_kept: int,
        news: News,
        log: Log,
    ) -> None:
        """Begin with nothing.

        Args:
            graph: The graph's segment.
            readers: One per output channel.
            reader_of: For each output the index of its reader; None for one of the driver's own.
            max_kept: Results of one channel that may be kept for refs not got yet.
            news: Told of whatever may make room while somebody wants it.
            log: Where to record what is taken.
        """
        self.lock = threading.RLock()
        self.attempts = attempts(self.lock.acquire)
        self.patient_attempts = attempts(self.lock.acquire, _PATIENT_S)
        self.readers = tuple(readers)
        self._only = readers[0] if len(readers) == 1 else None
        self._words = graph.words
        self._reader_of = tuple(reader_of)
        self._max_kept = max_kept
        self.news = news
        self.log = log
        self._wanting_lock = threading.Lock()
        self._wanting = 0
        """How many wait for room."""
        shares = Counter(reader_of)
        self._shares = [shares[number] for number in range(len(readers))]
        """How many refs of an execution get the same result."""
        self._claimed: list[dict[int, set[int]]] = [{} for _ in readers]
        """The outputs of these that have got or dropped it; only where there are several."""
        self._kept: list[dict[int, Any]] = [{} for _ in readers]
        self._dropped: list[set[int]] = [set() for _ in readers]
        self._alone = tuple(
            readers[number] if number is not None and shares[number] == 1 else None
            for number in reader_of
        )
        self._none = (None,) * len(self._alone)
        self.own: tuple[Reader | None, ...] = self._alone
        """By output, the reader that serves it alone, if there is one, for a `get` that need tell
        nobody; all None while somebody wants room."""

    def fill(self, ref: CompiledDAGRef, since_ns: int = 0) -> bool:
        """Fill `ref` in if its result is there and the graph is up, or was read before it ended.

        Args:
            ref: The ref.
            since_ns: Since when somebody waits for it, for the trace; 0 if nobody does.
        """
        if ref._value is not PENDING:
            return True
        number, execution = self.number(ref), ref._execution
        reader, kept = self.readers[number], self._kept[number]
        while reader.sequence <= execution and reader.ready() and self._is_open():
            self._take(number, since_ns)
        if execution in kept:
            ref._value = kept[execution]
            # With one claim there is no call from there to `pop`, so no signal is handled.
            if self._shares[number] == 1 or self._is_last_claim(number, execution, ref._output):
                kept.pop(execution, None)
            if self._wanting:
                self.news.tell()
            return True
        if reader.sequence > execution:
            msg = f"the result of execution {execution} was lost: its get was interrupted"
            raise ChannelError(msg)
        return False

    def number(self, ref: CompiledDAGRef) -> int:
        """Return the number of the channel that the result of `ref` comes by."""
        number = self._reader_of[ref._output]
        assert number is not None, "an output of the driver's own is filled in by execute"
        return number

    def awaited(self, refs: Sequence[CompiledDAGRef]) -> list[tuple[Reader, int]]:
        """Return the readers that `refs` need, each with what its sequence word is until news."""
        numbers = {self._reader_of[ref._output] for ref in refs}
        readers = [self.readers[number] for number in numbers if number is not None]
        return [(reader, reader.sequence) for reader in readers]

    def fetched(self) -> int:
        """Return how many executions were read off all channels.

        Needs no lock: readers only move on, each when it is done with a message. With a full window
        every `execute` asks.
        """
        if self._only is not None:
            return self._only.sequence
        return min([reader.sequence for reader in self.readers])

    def room(self, *, move: bool) -> Room:
        """Find how many executions are off the channels, after passing over what was dropped.

        Args:
            move: Take also what is there of the next execution, to make room, as far as results
                may be kept.
        """
        news, awaited, stuck = self.news.count, [], []
        for number, reader in enumerate(self.readers):
            dropped = self._dropped[number]
            while reader.sequence in dropped and reader.ready():
                dropped.discard(reader.sequence)
                reader.skip()
        oldest = self.fetched()
        for number, reader in enumerate(self.readers):
            if reader.sequence != oldest:
                continue
            if not reader.ready():
                awaited.append((reader, oldest))
            elif move and len(self._kept[number]) < self._max_kept:
                self._take(number)
            else:
                stuck.append((reader, oldest))
        return Room(self.fetched(), tuple(awaited), tuple(stuck), news)

    def want_room(self, more: int) -> None:
        """Count one more (1) or less (-1) who waits for room and has to be told of it."""
        with self._wanting_lock:
            self._wanting += more
            self.own = self._none if self._wanting else self._alone

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
        if number is None or not self._is_last_claim(number, execution, output):
            return
        dropped = self._dropped[number]
        dropped.add(execution)
        was_kept = self._kept[number].pop(execution, PENDING) is not PENDING
        if was_kept or self.readers[number].sequence > execution:
            dropped.discard(execution)
        if self._wanting and self._is_open():
            self.news.tell_soon()

    def drop(self, execution: int) -> None:
        """Drop all results of an execution: those kept, and what is still to come."""
        for number, reader in enumerate(self.readers):
            self._claimed[number].pop(execution, None)
            self._kept[number].pop(execution, None)
            if reader.sequence <= execution:
                self._dropped[number].add(execution)

    def unread(self, execution: int) -> list[int]:
        """Return the outputs of an execution that are on their channels, or still to come."""
        return [
            output
            for output, number in enumerate(self._reader_of)
            if number is not None
            and self.readers[number].sequence <= execution
            and execution not in self._dropped[number]
        ]

    def is_finished(self, execution: int) -> bool:
        """Tell whether all results of an execution have arrived."""
        return all(reader.words[reader.sequence_word] > execution for reader in self.readers)

    def num_kept(self) -> int:
        """Return how many results of one channel are kept, at most."""
        return max(map(len, self._kept))

    def _is_open(self) -> bool:
        return self._words[at.STATE_WORD] == at.OPEN

    def _is_last_claim(self, number: int, execution: int, output: int) -> bool:
        """Note that a ref needs the result no longer; tells whether it was the last."""
        if self._shares[number] == 1:
            return True
        claims = self._claimed[number].setdefault(execution, set())
        claims.add(output)
        if len(claims) < self._shares[number]:
            return False
        self._claimed[number].pop(execution, None)
        return True

    @whole_if_returns_are_checked
    def _take(self, number: int, since_ns: int = 0) -> None:
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
        if not execution & self.log.mask:
            self.log.took(reader, execution, since_ns)
