"""Ctrl-C while something is submitted, a reply handled, a session ended: never half-way."""

from __future__ import annotations

# `signal` makes enums of what it is given and returns, which would take 5 us of every `get`.
import _signal  # type: ignore[import-not-found]
import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

_P = ParamSpec("_P")
_T = TypeVar("_T")
_SIGINT = int(_signal.SIGINT)
_get_handler, _set_handler = _signal.getsignal, _signal.signal
_get_ident = threading.get_ident
_main = threading.main_thread()


def whole(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Have Ctrl-C in `function` be raised once it has returned or raised.

    For what changes tables that others go on with, and never waits: half a submission would take a
    CPU for good, half a message end an actor. Takes 1 us on the main thread; elsewhere there is no
    Ctrl-C.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if _get_ident() != _main.ident:
            return function(*args, **kwargs)
        previous = _get_handler(_SIGINT)
        if previous is _note or not callable(previous):
            return function(*args, **kwargs)
        _noted.clear()
        _set_handler(_SIGINT, _note)
        try:
            return function(*args, **kwargs)
        finally:
            _set_handler(_SIGINT, previous)
            if _noted:
                previous(_SIGINT, None)

    return call


_noted: list[int] = []
"""Ctrl-C that came in a `whole` function."""


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)


class Interrupts:
    """Puts Ctrl-C off to the end of the block, but for what `admit` encloses.

    Only the main thread is ever interrupted; elsewhere this does nothing.
    """

    def __init__(self, *, forget: bool = False) -> None:
        """Make one.

        Args:
            forget: Raise nothing at the end either: the interpreter is on its way out.
        """
        self._forget = forget
        self._admitting = False
        self.pending = False
        """Whether there was one that is put off."""
        self._previous: Callable[[int, FrameType | None], Any] | None = None

    def __enter__(self) -> Interrupts:
        previous = _get_handler(_SIGINT)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and callable(previous):  # neither ignored nor the end of the process
            self._previous = previous
            _set_handler(_SIGINT, self._interrupted)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._previous is not None:
            _set_handler(_SIGINT, self._previous)
            if self.pending and kind is None and not self._forget:
                self._previous(_SIGINT, None)
        return self._forget and kind is KeyboardInterrupt

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Let the first Ctrl-C in the block end it."""
        try:
            self._admitting = True
            yield
        finally:
            self._admitting = False

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if not self._admitting or self._previous is None:
            self.pending = True
            return
        self._admitting = False
        self._previous(number, frame)
