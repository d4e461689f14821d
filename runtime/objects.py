"""References to values that exist already or will."""

from __future__ import annotations

import copy
import itertools
import threading
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import DeserializationError
from compiled_dag.outcome import Error
from runtime.arguments import reduce_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.parcel import Parcel
    from runtime.process import ActorProcess
    from runtime.session import Session

_numbers = itertools.count(1)
_failures = itertools.count(1)
_lock = threading.Lock()


class _Failures:
    """Lets `get` of many references notice a failure without looking at all of them again."""

    last = 0


def num_failures() -> int:
    """Return a number that changes whenever a reference fails."""
    return _Failures.last


class ObjectRef:
    """The result of a call, or a value given to `put`. Made by those, never directly.

    Set once, by whichever thread learns the outcome; everybody else only looks at `done`.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_number",
        "done",
        "error",
        "parcel",
        "source",
        "what",
    )

    _is_object_ref = True

    def __init__(self, what: str, source: ActorProcess | Session) -> None:
        self.what = what
        """What messages call it."""
        self.source = source
        """Where its value comes from."""
        self.done = False
        self.parcel: Parcel | None = None
        self.error: BaseException | None = None
        """Why there is no value: its actor died, say. An exception of the method is in `parcel`."""
        self._number = next(_numbers)
        self._callbacks: list[Callable[[], None]] | None = None

    # --- for users

    def hex(self) -> str:
        """Return the reference's number in the session as 16 hexadecimal digits."""
        return f"{self._number:016x}"

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, waiting for it; as `runtime.get`."""
        return self.session.get([self], timeout)[0]

    def __repr__(self) -> str:
        state = "pending" if not self.done else "failed" if self.failed else "ready"
        return f"<ObjectRef {self._number} {self.what} {state}>"

    def __reduce__(self) -> Any:
        return reduce_reference(self)

    # --- for the session

    @property
    def session(self) -> Session:
        """The session it belongs to."""
        return self.source.session

    @property
    def failed(self) -> bool:
        """Tell whether `value` would raise."""
        return self.error is not None or (self.parcel is not None and self.parcel.is_error)

    def complete(self, parcel: Parcel) -> None:
        """Set the value."""
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
            value = self.parcel.load()
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
                self._callbacks = []
            self._callbacks.append(callback)
        if self.done:
            self._run_callbacks()

    def _finish(self) -> None:
        self.done = True
        if self.failed:
            _Failures.last = next(_failures)
        if self._callbacks:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:  # the other of `when_done` and `_finish` took it
                return
            callback()
