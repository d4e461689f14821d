"""Waiting for references: `get` and `wait`."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import GetTimeoutError
from compiled_dag.interrupts import Interrupts
from runtime.objects import ObjectRef, num_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.objects import Client, Pump

_MOST_NAMED = 3


def get_all(session: Client, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
    """Return the values of `refs` in order, raising the first error that is known.

    Raises:
        GetTimeoutError: Not all are ready in time.
    """
    for ref in refs:
        if not ref.done:
            _wait_for_all(session, refs, timeout)
            break
    return [ref.value() for ref in refs]


def _wait_for_all(session: Client, refs: Sequence[ObjectRef], timeout: float | None) -> None:
    session.check_owner()
    deadline = None if timeout is None else time.monotonic() + timeout
    progress = _Progress(refs, session.note_wait)
    with session.expecting(refs):
        in_time = _until(session, progress.ready, progress.close, deadline, progress.position)
    if progress.has_failed:
        for ref in refs:
            if ref.failed:
                ref.value()
    if not in_time:
        raise GetTimeoutError(_late(session, refs, timeout))


def _until(
    session: Client,
    ready: Callable[[], bool],
    leave: Callable[[], None],
    deadline: float | None,
    position: Callable[[], int] = int,
) -> bool:
    """Wait until `ready()`; Ctrl-C is raised between two looks, never while a reply is handled.

    A wait for many is one for each change of `position`: what keeps coming is worth yielding for,
    and who answers then need not wake this thread each time.
    """
    seen = 0

    def changed() -> bool:
        return ready() or interrupts.pending or position() != seen

    while True:
        with Interrupts() as interrupts:
            try:
                # First a look: it may take the reading over, which `wait_until` would give back.
                in_time = ready()
                while not (in_time or interrupts.pending):
                    seen = position()
                    if not session.wait_until(changed, deadline):
                        break
                    in_time = ready()
                    if deadline is not None and time.monotonic() >= deadline:
                        break
            finally:
                leave()
        if not interrupts.pending:
            return in_time


class _Progress:
    """How far a `get` has come; reads the replies of the actor it waits for, on its own thread."""

    def __init__(self, refs: Sequence[ObjectRef], note: Callable[[ObjectRef | None], None]) -> None:
        self._refs = refs
        self._note = note
        self._next = 0
        """The first that is not known to be done."""
        self._noted = -1
        self._failures = -1
        self._source: Any = None
        self._link: Pump | None = None
        self.has_failed = False

    def ready(self) -> bool:
        """Tell whether all are done, or one has failed."""
        if self._link is not None:
            self._link.pump()
        refs, at = self._refs, self._next
        for at in range(at, len(refs)):  # noqa: B020  from where the last look ended
            if not refs[at].done:
                break
        else:
            at = len(refs)
        self._next = at
        if at == len(refs):
            return True  # what has failed tells its value
        failures = num_failures()
        if self._failures != failures:
            self._failures = failures
            self.has_failed = any(ref.failed for ref in refs)
            if self.has_failed:
                return True
        if self._noted != at:
            self._noted = at
            self._note(refs[at])
        source = refs[at].source
        if source is not self._source or self._link is None:
            self._attend(source)
        return False

    def position(self) -> int:
        """Return the place of the first that is not known to be done."""
        return self._next

    def _attend(self, source: Any) -> None:
        self._leave()
        self._link = source.attend()
        self._source = source

    def close(self) -> None:
        """Leave the reading to the supervising thread again; nothing is awaited any more."""
        self._leave()
        if self._noted >= 0:
            self._noted = -1
            self._note(None)

    def _leave(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.leave()


def _late(session: Client, refs: Sequence[ObjectRef], timeout: float | None) -> str:
    waiting = [ref for ref in refs if not ref.done]
    # A poll is answered at once, with what is known here.
    describe = session.progress_of if timeout else lambda ref: f"{ref.what} {ref.source.where}"
    names = "; ".join(describe(ref) for ref in waiting[:_MOST_NAMED])
    more = f" and {len(waiting) - _MOST_NAMED} more" if len(waiting) > _MOST_NAMED else ""
    return f"not ready after {timeout:g} s: {names}{more}. The calls go on; get can be repeated"


def wait_for_some(
    session: Client, refs: Sequence[Any], num_returns: int, timeout: float | None
) -> list[Any]:
    """Return the first `num_returns` that are done, fewer at the timeout, in the order given.

    Those of compiled graphs are looked at, not got.
    """
    session.check_owner()
    deadline = None if timeout is None else time.monotonic() + timeout

    def ready() -> bool:
        return sum(map(_is_done, refs)) >= num_returns

    if not ready():
        with session.expecting([ref for ref in refs if isinstance(ref, ObjectRef)]):
            _until(session, ready, _leave_nothing, deadline)
    return [ref for ref in refs if _is_done(ref)][:num_returns]


def _is_done(ref: Any) -> bool:
    done: bool = ref.done if isinstance(ref, ObjectRef) else ref.ready()
    return done


class Arrivals:
    """References as they become ready; a look costs the same however many are awaited."""

    def __init__(self, session: Client) -> None:
        self._session = session
        self._arrived: deque[tuple[int, ObjectRef]] = deque()
        self._num_added = 0
        self.num_left = 0
        """Added and not taken."""

    def add(self, refs: Sequence[ObjectRef]) -> None:
        """Await references."""
        self._session.bring(refs)
        for number, ref in enumerate(refs, self._num_added):
            ref.when_done(partial(self._arrived.append, (number, ref)))
        self._num_added += len(refs)
        self.num_left += len(refs)

    def take(self, count: int, deadline: float | None) -> list[ObjectRef]:
        """Wait for `count` of `num_left`; returns them as they were added, or fewer, late."""
        self._session.check_owner()
        with self._session.expecting(()):
            _until(self._session, lambda: len(self._arrived) >= count, _leave_nothing, deadline)
        found = sorted(self._arrived.popleft() for _ in range(min(count, len(self._arrived))))
        self.num_left -= len(found)
        return [ref for _, ref in found]


def _leave_nothing() -> None:
    """Nothing was attended."""
