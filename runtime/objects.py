"""References to values that exist already or will."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from compiled_dag.errors import DeserializationError
from compiled_dag.interrupts import finalizer
from compiled_dag.lending import lend_by
from compiled_dag.outcome import Error
from runtime.references import next_reference, reduce_lent, reduce_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from runtime.ids import TaskId
    from runtime.parcel import Parcel


class Pump(Protocol):
    """Where the outcomes of references arrive."""

    def pump(self) -> None:
        """Take what has arrived, unless another thread is at it."""
        ...

    def leave(self) -> None:
        """Stop attending."""
        ...


class Client(Protocol):
    """The session as `get` and `wait` see it: the driver's own, or a worker's view of it."""

    def check_owner(self) -> None:
        """Refuse use in a forked child, or after the end."""
        ...

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Return the values of `refs`."""
        ...

    def wait_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until `ready()`; returns False at the deadline."""
        ...

    def expecting(self, refs: Sequence[ObjectRef]) -> AbstractContextManager[object]:
        """Have the outcomes of `refs` brought here while the caller waits for them."""
        ...

    def bring(self, refs: Sequence[ObjectRef]) -> None:
        """Have the outcomes of `refs` brought here, some time."""
        ...

    def tend(self) -> None:
        """Have what arrives taken in from now on, though nobody waits for it."""
        ...

    def task_id(self, ref: ObjectRef) -> TaskId | None:
        """Return the id of what makes the value of `ref`; None for a value given to `put`."""
        ...

    def progress_of(self, ref: ObjectRef) -> str:
        """Return what is known of a reference that is not ready, in words."""
        ...

    def note_wait(self, ref: ObjectRef | None) -> None:
        """Note which reference the calling thread waits for now; None: none any more."""
        ...


class Source(Protocol):
    """What the value of a reference comes from."""

    @property
    def session(self) -> Client:
        """The session as this process sees it."""
        ...

    @property
    def where(self) -> str:
        """For messages: ``on actor A(1)``."""
        ...

    def attend(self) -> Pump | None:
        """Let the calling thread read what arrives, until `Pump.leave`."""
        ...


_failures = itertools.count(1)
_lock = threading.Lock()
_awaited: dict[int, ObjectRef] = {}
"""References with callbacks that have not run, by identity. A task knows its references weakly: one
whose callbacks alone refer to it would be garbage, and nobody would ever learn of the outcome."""


class _Failures:
    """Lets `get` of many references notice a failure without looking at all of them again."""

    last = 0


def num_failures() -> int:
    """Return a number that changes whenever a reference fails."""
    return _Failures.last


class _Admission:
    """Who decides about the memory of large values: the driver's store."""

    check: Callable[[Any], BaseException | None] | None = None


def set_admission(check: Callable[[Any], BaseException | None] | None) -> None:
    """Have `check` return why a large value cannot be kept, or None."""
    _Admission.check = check


class _Running(threading.local):
    """Callbacks that this thread has still to run, while it runs one; None: it runs none."""

    waiting: deque[Callable[[], None]] | None = None


_running = _Running()


def _run_all(callbacks: Sequence[Callable[[], None]]) -> None:
    """Run callbacks; those that they cause come after them, so that long chains do not nest."""
    if _running.waiting is not None:
        _running.waiting.extend(callbacks)
        return
    waiting = _running.waiting = deque(callbacks)
    failure: BaseException | None = None
    while waiting:
        try:
            waiting.popleft()()
        except BaseException as error:  # noqa: BLE001  the others are somebody else's
            failure = failure or error
    _running.waiting = None
    if failure is not None:
        raise failure


class ObjectRef:
    """The result of a call, or a value given to `put`. Made by those, never directly.

    Set once, by whichever thread learns the outcome; everybody else only looks at `done`.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "call",
        "done",
        "error",
        "number",
        "parcel",
        "source",
        "what",
    )

    _is_object_ref = True
    __opaque_to_graphs__ = True

    def __init__(self, what: str, source: Source, number: int | None = None, call: int = 0) -> None:
        self.what = what
        """What messages call it."""
        self.source = source
        """Where its value comes from."""
        self.done = False
        self.parcel: Parcel | None = None
        self.error: BaseException | None = None
        """Why there is no value: its actor died, say. An exception of the method is in `parcel`."""
        self.number = next_reference() if number is None else number
        self.call = call
        """Number of the actor's call that makes it, where it is known: in the driver."""
        self._callbacks: deque[Callable[[], None]] | None = None

    # --- for users

    def hex(self) -> str:
        """Return the reference's number in the session as 16 hexadecimal digits."""
        return f"{self.number:016x}"

    def task_id(self) -> TaskId | None:
        """Return the id of the task or call that makes the value; None for a value given to `put`.

        The same as `RuntimeContext.get_task_id` returns there.
        """
        return self.session.task_id(self)

    def future(self) -> Future[Any]:
        """Return a `concurrent.futures.Future` of the value."""
        from concurrent.futures import Future  # noqa: PLC0415  20 ms that few scripts need

        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        future.ref = self  # type: ignore[attr-defined]  # who only awaits holds no reference
        self.session.bring([self])
        self.when_done(lambda: _settle(future, self))
        return future

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # noqa: PLC0415  50 ms that few scripts need

        return asyncio.wrap_future(self.future()).__await__()

    def __eq__(self, other: object) -> bool:
        return self.number == other.number if isinstance(other, ObjectRef) else NotImplemented

    def __hash__(self) -> int:
        return self.number

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, waiting for it; as `runtime.get`."""
        return self.session.get([self], timeout)[0]

    def __repr__(self) -> str:
        state = "pending" if not self.done else "failed" if self.failed else "ready"
        return f"<ObjectRef {self.number} {self.what} {state}>"

    def __reduce__(self) -> Any:
        return reduce_reference(self)

    def __copy__(self) -> ObjectRef:
        return self

    def __deepcopy__(self, _memo: object) -> ObjectRef:
        return self

    # --- for the session

    @property
    def session(self) -> Client:
        """The session it belongs to."""
        return self.source.session

    @property
    def failed(self) -> bool:
        """Tell whether `value` would raise."""
        return self.error is not None or (self.parcel is not None and self.parcel.is_error)

    def complete(self, parcel: Parcel) -> None:
        """Set the value; where it needs memory that the session must not use, an error."""
        if parcel.fd >= 0 and parcel.on_free is None and _Admission.check is not None:
            self.error = _Admission.check(parcel)
        if self.error is None:
            self.parcel = parcel
        self._finish()

    def fail(self, error: BaseException) -> None:
        """Set the reason why there will be no value."""
        self.error = error
        self._finish()

    def follow(self, other: ObjectRef) -> None:
        """Take over the outcome of another reference, which is done."""
        self.parcel, self.error = other.parcel, other.error
        self._finish()

    def value(self) -> Any:
        """Return the value once `done`, or raise what is in its place."""
        if self.error is not None:
            raise copy.copy(self.error)  # a fresh one: tracebacks pile up on a raised exception
        assert self.parcel is not None
        try:
            value = self.parcel.load(self)
        except Exception as cause:
            text = f"the value of {self!r} cannot be rebuilt here: {cause!r}"
            error = DeserializationError(text)
            error.__cause__ = cause
            raise Error.capture(error).exception() from cause
        if value.__class__ is Error:
            raise value.exception()
        return value

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the outcome is known, at once if it is."""
        with _lock:
            if self._callbacks is None:
                self._callbacks = deque()
            self._callbacks.append(callback)
        _awaited[id(self)] = self
        if self.done:
            self._run_callbacks()
        else:
            self.session.tend()

    def _finish(self) -> None:
        self.done = True
        if self.failed:
            _Failures.last = next(_failures)
        if self._callbacks:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        _awaited.pop(id(self), None)
        callbacks, taken = self._callbacks, []
        while callbacks:
            # The other of `when_done` and `_finish` may take it meanwhile.
            with contextlib.suppress(IndexError):
                taken.append(callbacks.popleft())
        _run_all(taken)


def _settle(future: Future[Any], ref: ObjectRef) -> None:
    try:
        future.set_result(ref.value())
    except BaseException as error:  # noqa: BLE001  whatever the value's place holds
        future.set_exception(error)


class Lifeline:
    """What keeps an actor alive: all handles of a process share one; gone with the last of them.

    Travels inside values as references do; its number is the actor's, negative.
    """

    __slots__ = ("__weakref__", "_gone", "actor_id", "owner")

    def __init__(self, actor_id: int, owner: Any, gone: Callable[[int], None]) -> None:
        """Make the lifeline of this process.

        Args:
            actor_id: Whose.
            owner: Whatever a handle needs to call the actor.
            gone: Called with the actor's number; may run at any moment, in any thread.
        """
        self.actor_id = actor_id
        self.owner = owner
        self._gone = gone

    @property
    def number(self) -> int:
        """The same in all processes; never that of an object."""
        return -self.actor_id

    def __reduce__(self) -> Any:
        return reduce_reference(self)

    def __repr__(self) -> str:
        return repr(self.owner)

    @finalizer
    def __del__(self) -> None:
        self._gone(self.actor_id)


lend_by(ObjectRef, reduce_lent)
lend_by(Lifeline, reduce_lent)
