"""Waiting in coroutines: for results, and for a place in the window. Never blocks the event loop.

The first 200 us, while a result that comes quickly comes, a coroutine looks once a turn of the
loop, under the same policy as a thread that waits (`Waiter.turns`). After that it parks: an asyncio
future, set by the `Watcher`'s thread. Locks are tried; one that is taken is waited for in turns
where its holder only copies a result, and on a thread of the loop's where it may run user code.

asyncio is imported only where a coroutine parks: then it is there already.
"""

from __future__ import annotations

import contextlib
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from compiled_dag.channel import layout as at
from compiled_dag.ref import PENDING, CompiledDAGRef
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.fetch import Fetching, Waits
    from compiled_dag.submit import Submission
    from compiled_dag.watcher import Watcher

Wake = Callable[[], None]
Undo = Callable[[], None]


@types.coroutine
def parked(arrange: Callable[[Wake], Undo], deadline: float | None) -> Generator[Any, None, None]:
    """Park the running task until it is woken, or the deadline.

    Args:
        arrange: Given how to wake the task, from any thread; returns how to undo that.
        deadline: `time.monotonic` value, or None.
    """
    from asyncio import get_running_loop  # noqa: PLC0415  see the module's head

    loop = get_running_loop()
    future = loop.create_future()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_set, future)

    timer = None
    if deadline is not None:
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), _set, future)
    undo = arrange(wake)
    try:
        yield from future.__await__()
    finally:
        undo()
        if timer is not None:
            timer.cancel()


def _set(future: Any) -> None:
    if not future.done():
        future.set_result(None)


class _Turn:
    """A coroutine's place in the line of those that wait for room."""

    __slots__ = ("wake",)

    def __init__(self) -> None:
        self.wake: Wake | None = None


class Awaiting:
    """What coroutines wait for of one graph: results, and a place in its window."""

    def __init__(self, fetching: Fetching, submission: Submission, watcher: Watcher) -> None:
        self._fetching = fetching
        self._results = fetching.results
        self._submission = submission
        self._watcher = watcher
        self._words = fetching.words
        readers = fetching.results.readers
        self._places = [(reader.words, reader.sequence_word) for reader in readers]
        self._sites = [Site() for _ in readers]
        self._room_site = Site()
        self._lock = threading.Lock()
        self._wakes: list[dict[int, list[Wake]]] = [{} for _ in readers]
        """Per channel: those parked until a message, by its number."""
        self._seen = [0] * len(readers)
        self._news = 0
        self._line: deque[_Turn] = deque()

    # --- a result ---------------------------------------------------------------------------------

    def fill(self, ref: CompiledDAGRef) -> Generator[Any, None, None]:
        """Fill `ref` in, for a coroutine.

        Raises:
            GraphActorDiedError: The graph broke.
            ChannelClosedError: The graph was torn down.
            CapacityExceededError: More results would be kept on the way than may be.
        """
        fetching, results = self._fetching, self._results
        fetching.check_owner()
        number, execution, state = results.number(ref), ref._execution, self._words
        words, word = self._places[number]

        def over() -> bool:
            return (
                words[word] > execution
                or state[at.STATE_WORD] != at.OPEN
                or ref._value is not PENDING
            )

        while ref._value is PENDING:
            yield from self._wait(
                over, self._sites[number], lambda wake: self._park(number, execution, over, wake)
            )
            for taken in results.attempts:
                if taken:
                    try:
                        if results.fill(ref):
                            return
                        break
                    finally:
                        results.lock.release()
                yield  # somebody takes results just now
            fetching.guard()

    def _wait(
        self,
        over: Callable[[], bool],
        site: Site,
        arrange: Callable[[Wake], Undo],
        deadline: float | None = None,
    ) -> Generator[Any, None, None]:
        """Wait in turns of the loop, then parked."""
        waiter, start = self._fetching.host.waiter, time.monotonic()
        if not (yield from waiter.turns(over, site)):
            yield from parked(arrange, deadline)
            waiter.learn(site, start)

    def _park(self, number: int, execution: int, over: Callable[[], bool], wake: Wake) -> Undo:
        with self._lock:
            if not any(self._wakes):
                self._look()
            wakes = self._wakes[number].setdefault(execution, [])
            wakes.append(wake)
        self._watcher.watch(self, self._ready, self._fire)
        if over():  # before anybody watched for this
            wake()

        def undo() -> None:
            with self._lock:
                if wake in wakes:
                    wakes.remove(wake)
                if not wakes and self._wakes[number].get(execution) is wakes:
                    del self._wakes[number][execution]

        return undo

    def _look(self) -> None:
        """Note what has arrived: only what comes later is something new."""
        self._news = self._results.news.count
        self._seen = [words[word] for words, word in self._places]

    def _ready(self) -> bool:
        if self._words[at.STATE_WORD] != at.OPEN or self._news != self._results.news.count:
            return True
        places = zip(self._places, self._seen, self._wakes, strict=True)
        return any(wakes and words[word] != seen for (words, word), seen, wakes in places)

    def _fire(self) -> None:
        """Wake whoever's message has arrived; everybody at the graph's end, or at news."""
        with self._lock:
            everybody = (
                self._words[at.STATE_WORD] != at.OPEN or self._news != self._results.news.count
            )
            before = self._seen
            self._look()
            due: list[Wake] = []
            for wakes, first, end in zip(self._wakes, before, self._seen, strict=True):
                arrived = list(wakes) if everybody else range(first, end)
                for execution in arrived:
                    due += wakes.pop(execution, ())
            left = any(self._wakes)
        for wake in due:
            wake()
        if left:
            self._watcher.watch(self, self._ready, self._fire)

    # --- a place in the window --------------------------------------------------------------------

    async def place(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> None:
        """Start an execution, as `Submission.submit`; first come first served among coroutines."""
        if not self._line and await self._attempt(refs, values) is None:
            return
        deadline, turn = self._submission.deadline(), _Turn()
        self._line.append(turn)
        self._results.want_room(1)
        try:
            while self._line[0] is not turn:
                await parked(lambda wake: self._line_up(turn, wake), deadline)
                self._check(deadline)
            while (waits := await self._attempt(refs, values)) is not None:
                self._check(deadline)
                await self._wait_for_room(waits, deadline)
        finally:
            self._results.want_room(-1)
            self._line.remove(turn)
            if self._line and (wake := self._line[0].wake) is not None:
                wake()

    async def _attempt(self, refs: Sequence[CompiledDAGRef], values: Sequence[Any]) -> Waits | None:
        """Start an execution if there is room; else return what may make some."""
        submission, results = self._submission, self._results
        for taken in submission.attempts:
            if taken:
                try:
                    for both_taken in results.attempts:
                        if both_taken:
                            try:
                                return submission.attempt(refs, values)
                            finally:
                                results.lock.release()
                        break
                finally:
                    submission.lock.release()
            break
        from asyncio import get_running_loop  # noqa: PLC0415  see the module's head

        # Who has a lock may be pickling: user code, which takes as long as it takes.
        return await get_running_loop().run_in_executor(None, submission.attempt, refs, values)

    @types.coroutine
    def _wait_for_room(self, waits: Waits, deadline: float | None) -> Generator[Any, None, None]:
        key, watcher = object(), self._watcher

        def over() -> bool:
            return waits.over() or self._words[at.STATE_WORD] != at.OPEN

        def watch(wake: Wake) -> Undo:
            watcher.watch(key, over, wake)
            return lambda: watcher.forget(key)

        yield from self._wait(over, self._room_site, watch, deadline)

    def _line_up(self, turn: _Turn, wake: Wake) -> Undo:
        turn.wake = wake
        if self._line[0] is turn:
            wake()

        def undo() -> None:
            turn.wake = None

        return undo

    def _check(self, deadline: float | None) -> None:
        if deadline is not None and time.monotonic() >= deadline:
            raise self._submission.late_error()
