"""Starting executions: number them, send their inputs, keep to the window.

An execution is in flight from here until all its results were read off the channels. That is also
what makes a descriptor slot free again, so the window of `max_inflight` executions is all the flow
control the channels need.

What happens when the window is full is the capacity policy's: ``raise`` refuses; ``block`` makes
the caller wait, without any lock; ``queue`` keeps the inputs here, first come first served;
``drop_oldest`` gives the place of the oldest execution to the new one. What waits here is sent when
a result arrives or is got: the `Watcher` calls `feed` for that.

`_bound` is how the usual case stays one comparison: an execution number from it on has something to
look at first (a full window, inputs that wait, an interrupted `submit`). Of a full window, which is
usual where many are in flight, that is only how far the output channels were read.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag import capacity
from compiled_dag.attempts import attempts
from compiled_dag.channel import layout as at
from compiled_dag.errors import CapacityExceededError, ExecutionDroppedError, SubmitTimeoutError
from compiled_dag.fetch import Waits
from compiled_dag.inlet import Inlet
from compiled_dag.reentry import refuse_inside
from compiled_dag.ref import PENDING, CompiledDAGRef, Raised
from compiled_dag.shm.forks import generation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.deployment import Deployment
    from compiled_dag.fetch import Fetching
    from compiled_dag.options import CompileOptions
    from compiled_dag.program import Program
    from compiled_dag.watcher import Watcher

_LOOK: Final = 0
"""The `_bound` that no execution is under."""


class _Waiting:
    """Inputs that wait for a place in the window."""

    __slots__ = ("inputs", "refs", "wanted")

    def __init__(self, inputs: tuple[Any, ...], refs: Sequence[CompiledDAGRef]) -> None:
        self.inputs = inputs
        self.refs = refs
        """Held: were one dropped now, it would drop the results of whoever gets its number."""
        self.wanted = False
        """Whether the caller has the refs; without, an interrupt came between."""


_Refs = tuple["weakref.ref[CompiledDAGRef]", ...]


class Submission:
    """The driver's writing side of one graph. Any thread may submit; numbers have no gaps."""

    def __init__(
        self,
        deployment: Deployment,
        program: Program,
        options: CompileOptions,
        fetching: Fetching,
        watcher: Watcher,
    ) -> None:
        member = deployment.member
        self.inlet = Inlet(deployment.segment, program, options, member, fetching.results.log)
        self.inlet.on_lent(_weakly(self._watch_lent))
        self.next = 0
        """Number of the next execution that is sent."""
        self.lock = member.lock
        self.attempts = attempts(self.lock.acquire)
        member.inputs = self.inlet
        self.results = fetching.results
        self._deployment = deployment
        self._options = options
        self._fetching = fetching
        self._watcher = watcher
        self._words = deployment.segment.words
        self._limit = options.max_inflight
        self._policy = options.capacity_policy
        self._moves = self._policy in {"block", "queue"}
        self._drops = self._policy == "drop_oldest"
        self._room = self.results.room(move=False)
        self._generation = generation[0]
        self._bound = _LOOK
        self._waiting: deque[_Waiting] = deque()
        self._sending: _Waiting | None = None
        """Whose inputs are, or were when it was interrupted, being sent; None: the caller's own."""
        self._droppable: dict[int, _Refs] = {}
        """Refs of the executions sent and not fetched yet, by number (``drop_oldest`` only)."""
        if self._drops:
            self.results.want_room(1)  # for good: every get must look whether it was dropped

    # --- one execution ----------------------------------------------------------------------------

    def submit(self, refs: Sequence[CompiledDAGRef], values: list[Any]) -> None:
        """Start an execution with the driver's slots filled; `refs`, made for it, get its number.

        Raises:
            TypeError: An input cannot be pickled; nothing was started.
            CapacityExceededError: Too many executions are unfetched, or queued.
            ChannelClosedError: The graph was torn down.
            GraphUsageError: This interrupts another submission of this thread.
        """
        with self.lock:
            bound = self._bound
            self._bound = _LOOK  # first: what interrupts this from here on must see it
            number = self.next
            if number >= bound > _LOOK:
                bound = self.results.fetched() + self._limit
            if (
                number < bound
                and self._generation == generation[0]
                and self._words[at.STATE_WORD] == at.OPEN
            ):
                self.inlet.send(values, number)
                for ref in refs:
                    ref._execution = number
                    ref._value = PENDING
                self.next = number + 1
                self._bound = bound
                return
            if bound == _LOOK:
                self._refuse_inside(above=2)
            placed = self.place(refs, values)
        if not placed:
            self._wait_and_place(refs, values)

    def _refuse_inside(self, above: int) -> None:
        """Refuse a submission that has interrupted another one, of this graph and thread."""
        refuse_inside(_SUBMITTING, lambda other: other is self, self._deployment.name, above)

    def place(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> bool:
        """Start, queue or refuse an execution; False if it has to wait. Called under the lock."""
        self._fetching.check_owner()
        self._bound = _LOOK  # until all is done
        self._settle()
        if self._words[at.STATE_WORD] != at.OPEN:
            if self._deployment.fault is None:
                raise self._deployment.end_cause()
            # Broken. The refs raise the cause, so that scripts which guard only get work.
            _number(refs, self.next)
            self.next += 1
            return True
        self._send_waiting()
        if not self._waiting and self._has_room():
            self.inlet.send(values, self.next)
            _number(refs, self.next)
            if self._drops:
                self._droppable[self.next] = _weak(refs)
            self.next += 1
            self._set_bound()
            return True
        return self._place_in_full(refs, values)

    def _place_in_full(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> bool:
        match self._policy:
            case "block":
                return False
            case "queue" if len(self._waiting) < self._options.max_queued:
                self._queue(refs, _Waiting(self.inlet.capture(values), refs))
            case "drop_oldest":
                self._replace_oldest(refs, values)
            case _:
                raise self.full_error()
        return True

    def _set_bound(self) -> None:
        if not self._drops:
            self._bound = self._room.fetched + self._limit

    def _settle(self) -> None:
        """Finish what an interrupt (Ctrl-C) broke off while inputs were sent.

        What was shown in part is shown whole and runs. Where its caller never saw a ref, its
        results are passed over when they arrive.
        """
        self.inlet.settle()
        if self.inlet.num_shown() > self.next:
            sending = self._sending
            if sending is None:
                self.results.drop(self.next)
            elif self._waiting and self._waiting[0] is sending:
                self._waiting.popleft()
            self.next += 1
        self._sending = None

    # --- the window -------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Tell whether one more may be sent, after looking what was fetched meanwhile."""
        if self.next - self._room.fetched >= self._limit:
            with self.results.lock:
                self._room = self.results.room(move=self._moves)
            self._forget_fetched()
        return self.next - self._room.fetched < self._limit

    def attempt(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> Waits | None:
        """Start, queue or refuse an execution; if it has to wait, return for what.

        Raises:
            GraphUsageError: This interrupts another submission of this thread.
        """
        if self._bound == _LOOK:
            self._refuse_inside(above=2)
        return self._attempt(refs, values)

    def _attempt(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> Waits | None:
        with self.lock:
            if self.place(refs, values):
                return None
            room = self._room
            news = ((self.results.news, room.news),)
            return Waits(room.awaited, room.stuck, news, self._fetching.guard)

    def _wait_and_place(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> None:
        """Wait for a place without holding the lock; somebody else may be quicker each time."""
        deadline, timeout_s = self.deadline(), self._options.submit_timeout_s
        self.results.want_room(1)
        try:
            while (waits := self._attempt(refs, values)) is not None:
                report = self._fetching.wait_or_report(waits, timeout_s, deadline)
                if report is not None:
                    raise self.late_error(report)
        finally:
            self.results.want_room(-1)

    def deadline(self) -> float | None:
        """Return until when (`time.monotonic`) an `execute` that begins now may wait."""
        timeout_s = self._options.submit_timeout_s
        return None if timeout_s < 0 else time.monotonic() + timeout_s

    def full_error(self) -> CapacityExceededError:
        """Return what an `execute` raises that found no place."""
        unfetched = range(self._room.fetched, self.next)
        return CapacityExceededError(
            capacity.full(
                self._deployment, self.results, self._options, unfetched, len(self._waiting)
            )
        )

    def late_error(self, report: str | None = None) -> SubmitTimeoutError:
        """Return what an `execute` raises that waited for a place; None takes a short report."""
        if report is None:
            report = self._deployment.observer.report(stacks=False).summary
        error = SubmitTimeoutError("\n".join(filter(None, (str(self.full_error()), report))))
        error.report = report
        return error

    # --- inputs that wait here --------------------------------------------------------------------

    def _queue(self, refs: Sequence[CompiledDAGRef], waiting: _Waiting) -> None:
        if not self._waiting:
            self.results.want_room(1)
        self._bound = _LOOK
        self._waiting.append(waiting)
        _number(refs, self.next + len(self._waiting) - 1)
        waiting.wanted = True
        self._send_waiting()  # what came before somebody wanted room told nobody
        self._watch()

    def _send_waiting(self) -> None:
        """Send inputs that wait, as far as there is room. Called under the lock."""
        if not self._waiting:
            return
        while self._waiting and self._has_room() and self.inlet.may_send():
            first = self._sending = self._waiting[0]
            self.inlet.send_captured(first.inputs, self.next)
            self._waiting.popleft()
            if not first.wanted:
                self.results.drop(self.next)
            if self._drops:
                self._droppable[self.next] = _weak(first.refs)
            self.next += 1
            self._sending = None
        if not self._waiting:
            self.results.want_room(-1)
            self._set_bound()

    def _watch(self) -> None:
        if self._waiting:
            self._watcher.watch(self, self._may_feed, self.feed)

    def _may_feed(self) -> bool:
        room = self._room
        if self.next - room.fetched < self._limit:
            return self.inlet.may_send()  # there is a place: the tickets were the limit
        return (
            self._words[at.STATE_WORD] != at.OPEN
            or self.results.news.count != room.news
            or any(reader.words[reader.sequence_word] != seen for reader, seen in room.awaited)
            or any(reader.sequence != seen for reader, seen in room.stuck)
        )

    def feed(self) -> None:
        """Send inputs that wait, now that there may be room; drop them if the graph has ended."""
        with self.lock:
            if self._words[at.STATE_WORD] != at.OPEN:
                if self._waiting:
                    self._waiting.clear()  # their refs raise what ended it
                    self.results.want_room(-1)
                return
            self._settle()
            self._send_waiting()
            self._watch()

    # --- what is lent with inputs -----------------------------------------------------------------

    def _watch_lent(self) -> None:
        """Let go of what inputs refer to once the actors have it, though nothing more is sent."""
        self._watcher.watch(self.inlet, self._may_take_back, self._take_back)

    def _may_take_back(self) -> bool:
        return self._words[at.STATE_WORD] != at.OPEN or self.inlet.may_take_back

    def _take_back(self) -> None:
        with self.lock:
            self.inlet.take_back(everything=self._words[at.STATE_WORD] != at.OPEN)

    # --- drop_oldest ------------------------------------------------------------------------------

    def _replace_oldest(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> None:
        """Give the place of the oldest execution to this one."""
        waiting = _Waiting(self.inlet.capture(values), refs)
        with self.results.lock:
            self._forget_fetched()
            if len(self._droppable) + len(self._waiting) >= self._limit:
                self._drop_one()
        self._queue(refs, waiting)
        self.results.news.tell()

    def _forget_fetched(self) -> None:
        """Forget whose refs were given out for what cannot be dropped any more."""
        fetched = self._room.fetched
        for number in [number for number in self._droppable if number < fetched]:
            del self._droppable[number]

    def _drop_one(self) -> None:
        """Drop the oldest that has finished, else the oldest that waits, else the oldest."""
        oldest = min(self._droppable, default=None)
        finished = oldest is not None and self.results.is_finished(oldest)
        if self._waiting and not finished:
            self._settle_dropped(self._waiting.popleft().refs, None)
        elif oldest is not None:
            self.results.drop(oldest)
            refs = [weak() for weak in self._droppable.pop(oldest)]
            self._settle_dropped(refs, oldest)

    def _settle_dropped(self, refs: Sequence[CompiledDAGRef | None], number: int | None) -> None:
        """Have dropped refs raise it."""
        by = self.next + len(self._waiting)
        error = ExecutionDroppedError(capacity.dropped(self._deployment, self._options, number, by))
        for ref in refs:
            if ref is not None and ref._value is PENDING:
                ref._value = Raised(error)


def _weakly(method: Callable[[], object]) -> Callable[[], object]:
    """Return what calls a method while its object lives: memory must not wait for the collector."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        found = weak()
        if found is not None:
            found()

    return call


def _number(refs: Sequence[CompiledDAGRef], number: int) -> None:
    """Make refs those of an execution: from here on dropping them drops its results."""
    for ref in refs:
        ref._execution = number
        ref._value = PENDING


def _weak(refs: Sequence[CompiledDAGRef]) -> _Refs:
    return tuple([weakref.ref(ref) for ref in refs])


_SUBMITTING: Final = {
    method.__code__
    for method in (Submission.submit, Submission.place, Submission.feed, Submission._take_back)
}
"""What another submission must not run on top of."""
