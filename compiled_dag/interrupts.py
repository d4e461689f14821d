"""Ctrl-C while something is submitted, a reply handled, a session ended: never half-way."""

from __future__ import annotations

# `signal` makes enums of what it is given and returns, which would take 5 us of every `get`.
import _signal  # type: ignore[import-not-found]
import functools
import sys
import threading
import weakref
from _thread import interrupt_main as _interrupt
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

_P = ParamSpec("_P")
_T = TypeVar("_T")
_F = TypeVar("_F", bound="Callable[..., None]")
_SIGINT = int(_signal.SIGINT)
_get_handler, _set_handler = _signal.getsignal, _signal.signal
_get_ident = threading.get_ident
_main = threading.main_thread()


_noted: list[int] = []
"""Ctrl-C that came in a `whole` function."""


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)


def whole(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Have Ctrl-C in `function` be raised once it has returned or raised.

    For what changes tables that others go on with, and never waits: half a submission would take a
    CPU for good, half a message end an actor. Takes 1 us on the main thread; elsewhere there is no
    Ctrl-C.
    """
    # Of its own, not global: finalizers may run when a module's globals are already gone.
    get_ident, main, noted, note = _get_ident, _main, _noted, _note
    get_handler, set_handler, sigint = _get_handler, _set_handler, _SIGINT

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if get_ident() != main.ident:
            return function(*args, **kwargs)
        previous = get_handler(sigint)
        if previous is note or not callable(previous):
            return function(*args, **kwargs)
        noted.clear()
        set_handler(sigint, note)
        try:
            return function(*args, **kwargs)
        finally:
            set_handler(sigint, previous)
            if noted:
                previous(sigint, None)

    return call


RETURNS_ARE_CHECKED: Final = sys.version_info < (3, 11)
"""Whether Ctrl-C may come between the return of a function written in Python and what is done with
the value: until Python 3.10."""


def whole_if_returns_are_checked(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Be `whole` in such a Python: for what keeps what a function of ours returns."""
    return whole(function) if RETURNS_ARE_CHECKED else function


_finalizers: list[Any] = []


def finalizer(function: _F) -> _F:
    """Note a `__del__` that may be run again, as far as it was not done: see `Unswallowed`."""
    _finalizers.append(function)
    return function


class Unswallowed:
    """Has Ctrl-C that comes in a finalizer be raised behind it; nothing is left undone.

    Python says ``Exception ignored in`` of what a `__del__`, a callback of a weak reference or the
    garbage collector raises, and goes on: the user would have to press again, and a finalizer that
    had not begun never runs. Python tells `sys.unraisablehook` of it. That costs nothing before.
    """

    def __init__(self) -> None:
        """Begin."""
        self._previous, sys.unraisablehook = sys.unraisablehook, self._hook

    def end(self) -> None:
        """Do so no longer, unless another hook has been set meanwhile, which may call this one."""
        if sys.unraisablehook == self._hook:
            sys.unraisablehook = self._previous

    def _hook(self, told: sys.UnraisableHookArgs) -> None:
        if told.exc_type is not KeyboardInterrupt or _get_ident() != _main.ident:
            self._previous(told)
            return
        _run_again(told)
        # From here on Python handles no signal before it is back where the finalizer came.
        for _ in map(_interrupt, (_signal.SIGINT,)):
            return


def _run_again(told: sys.UnraisableHookArgs) -> None:
    """Finish a finalizer of ours that was broken off, or had not begun."""
    finalize: Any = told.object
    arguments: tuple[Any, ...] = ()
    if any(finalize is one for one in _finalizers):  # it may be anything
        trace = told.exc_traceback
        while trace is not None and trace.tb_frame.f_code is not finalize.__code__:
            trace = trace.tb_next
        if trace is None:
            return
        arguments = (trace.tb_frame.f_locals["self"],)
    elif not isinstance(finalize, weakref.finalize):  # which has been called, if it has begun
        return
    previous = _set_handler(_SIGINT, _note)
    try:
        finalize(*arguments)
    finally:
        _set_handler(_SIGINT, previous)


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
        # Neither ignored nor the end of the process.
        if _get_ident() == _main.ident and callable(previous):
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
