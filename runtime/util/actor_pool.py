"""A pool of actors of one kind that share out the calls given to it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from compiled_dag.errors import ActorDiedError
from runtime.api import get, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runtime.actor import ActorHandle
    from runtime.objects import ObjectRef

    Submit: TypeAlias = Callable[[ActorHandle, Any], Any]
    """Calls a method of the actor with the value; returns what `.remote()` returned."""


class ActorPool:
    """Actors that share out calls: each has at most one at a time, the others wait here.

    A call that waits is sent when a result is taken: only a caller that takes results keeps the
    actors busy.
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        self._running: dict[ObjectRef, tuple[int, ActorHandle]] = {}
        """By the (first) reference of the call: its index and its actor."""
        self._results: dict[int, Any] = {}
        """What the submitting function returned, by index."""
        self._waiting: deque[tuple[Submit, Any]] = deque()
        self._num_sent = 0
        self._next = 0
        """Index of the result that `get_next` returns next."""

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Call `fn(actor, value)` for each value; yield the results in the order of the values.

        Results that were not taken before are dropped; their calls are not waited for.

        Raises:
            Exception: Whatever one of the dropped calls has raised.
        """
        while self.has_next():
            try:
                self.get_next(timeout=0, ignore_if_timedout=True)
            except TimeoutError:
                continue
        self._submit_all(fn, values)
        return self._take(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Call `fn(actor, value)` for each value; yield the results as they come.

        Results that were not taken before are waited for and dropped.

        Raises:
            Exception: Whatever one of the dropped calls has raised.
        """
        while self.has_next():
            self.get_next_unordered()
        self._submit_all(fn, values)
        return self._take(self.get_next_unordered)

    def _submit_all(self, fn: Submit, values: Iterable[Any]) -> None:
        for value in values:
            self.submit(fn, value)

    def _take(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def submit(self, fn: Submit, value: Any) -> None:
        """Have an actor run `fn(actor, value)`, once one is idle."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        result = fn(actor, value)
        self._running[_first(result)] = (self._num_sent, actor)
        self._results[self._num_sent] = result
        self._num_sent += 1

    def has_next(self) -> bool:
        """Tell whether there is a result to take, now or later."""
        return bool(self._running)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return the next result in the order of submission, waiting for it.

        Args:
            timeout: Seconds to wait; None for ever.
            ignore_if_timedout: Drop a result that did not come in time.

        Raises:
            StopIteration: There is none.
            ValueError: `get_next_unordered` has taken a later one.
            TimeoutError: It did not come in time.
            Exception: Whatever the call raised.
        """
        self._refuse_if_empty("get_next")
        if self._next >= self._num_sent:
            raise ValueError(
                "get_next() after get_next_unordered(): which result comes next is not known. Take "
                "the others with get_next_unordered() too"
            )
        ref = _first(self._results[self._next])
        in_time = timeout is None or bool(wait([ref], timeout=timeout)[0])
        return self._finish(ref, timeout, in_time=in_time, ignore=ignore_if_timedout)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Return whichever result comes first, waiting for it.

        Args:
            timeout: Seconds to wait; None for ever.
            ignore_if_timedout: Drop the oldest result if none came in time.

        Raises:
            StopIteration: There is none.
            TimeoutError: None came in time.
            Exception: Whatever the call raised.
        """
        self._refuse_if_empty("get_next_unordered")
        refs = list(self._running)
        ready, _ = wait(refs, timeout=timeout)
        return self._finish(
            ready[0] if ready else refs[0],
            timeout,
            in_time=bool(ready),
            ignore=ignore_if_timedout,
        )

    def _refuse_if_empty(self, what: str) -> None:
        if not self.has_next():
            raise StopIteration(f"{what}(): every result has been taken")

    def _finish(self, ref: ObjectRef, timeout: float | None, *, in_time: bool, ignore: bool) -> Any:
        """Take a result out of the pool, or raise because it is late."""
        if not in_time and not ignore:
            raise TimeoutError(f"no result within {timeout:g} s: it can still be taken")
        index, actor = self._running.pop(ref)
        result = self._results.pop(index)
        self._next = max(self._next, index + 1)
        if not in_time:
            self._free(actor)
            raise TimeoutError(f"no result within {timeout:g} s: {ref!r} has been dropped")
        alive = True
        try:
            return get(result)
        except ActorDiedError:
            alive = False
            raise
        finally:
            self._free(actor, alive=alive)

    def _free(self, actor: ActorHandle, *, alive: bool = True) -> None:
        """Take an actor back, unless it is dead, and send the next call."""
        if alive:
            self._idle.append(actor)
        if self._waiting and self._idle:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Tell whether an actor is idle and no call waits."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Take an idle actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor to the pool.

        Raises:
            ValueError: It is in the pool already.
        """
        busy = [known for _, known in self._running.values()]
        if actor in self._idle or actor in busy:
            raise ValueError(f"{actor!r} belongs to this pool already")
        self._free(actor)


def _first(result: Any) -> ObjectRef:
    """Return the reference to wait for: the values of one call come together."""
    ref: ObjectRef = result[0] if isinstance(result, list) else result
    return ref
