"""A function of this project's own that is on its way to an actor and back."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    WaitUntil = Callable[[Callable[[], bool], float | None], bool]


class Failure(NamedTuple):
    """In place of what was asked for: asking raises."""

    error: BaseException


class SystemCall:
    """The `Pending` of `Host.submit`."""

    __slots__ = ("_data", "_done", "_error", "_then", "_wait_until", "_what")

    def __init__(
        self, wait_until: WaitUntil, what: str, then: Callable[[SystemCall], object] | None = None
    ) -> None:
        """Begin to wait.

        Args:
            wait_until: How to wait in this process until something is so, or a deadline.
            what: What messages call it.
            then: Called with this once it has ended, from any thread.
        """
        self._then = then
        self._wait_until = wait_until
        self._what = what
        self._done = False
        self._data = b""
        self._error: BaseException | None = None

    def finish(self, *, failed: bool, data: bytes) -> None:
        """Take the actor's reply."""
        if failed:
            try:
                self._error = pickle.loads(data)
            except Exception as error:  # noqa: BLE001  the class may not import here
                self._error = error
        self._data = data
        self._end()

    def fail(self, error: BaseException) -> None:
        """Note that there will be no reply."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self._done = True
        if self._then is not None:
            self._then(self)

    def outcome(self) -> Any:
        """Return what came back, or a `Failure`; only once it has ended."""
        return self._data if self._error is None else Failure(self._error)

    def result(self, deadline: float | None) -> bytes:
        """Wait for the reply, as `compiled_dag.host.Pending` says."""
        if not self._wait_until(lambda: self._done, deadline):
            raise TimeoutError(f"{self._what} did not answer in time")
        if self._error is not None:
            raise copy.copy(self._error)
        return self._data
