"""Interrupting what runs: how a running call is cancelled.

On the main thread: the driver writes the call's number on the board and sends a signal. Python runs
its handler on the main thread between two instructions, and it raises there, unless the number is
not that of what runs now, or the thread is in the middle of a message: then it raises right after
that. What is raised in a finalizer ends that and nothing else, since Python reports it and goes on:
it is raised again, until it ends the call.

On other threads: Python raises there as soon as the thread runs Python code, asked by the thread
that takes the messages, unless the call is over, or the thread is in the middle of a message. What
ends a finalizer only is asked for again here, too, once the thread has reported it.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import TaskCancelledError
from compiled_dag.shm.board import CANCELLED, CANCELS, CLAIMED
from compiled_dag.shm.futex import fence

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from compiled_dag.shm.board import Board

SIGNAL = signal.SIGURG
"""Ignored by default, so one that comes too early does no harm."""
_AGAIN_S: Final = 1e-3
"""How long the end of a finalizer may take that was interrupted, before it is tried again."""


class Interruption:
    """Whether what runs may be interrupted. As a context: not now, but afterwards."""

    def __init__(self, board: Board, line: int) -> None:
        self._words = board.words
        self._claimed = board.word_index(line, CLAIMED)
        self._cancelled = board.word_index(line, CANCELLED)
        self._main = threading.main_thread().ident or 0
        self._depth = 0
        self._deferred = False
        self.running = False
        """Whether user code runs on the main thread."""
        self._raised: weakref.ref[BaseException] | None = None
        """What was raised last on the main thread."""
        self._reporting = False
        """Whether that is being reported as lost: raised now, it would be lost as well."""
        self._lock = threading.Lock()
        self._others: dict[int, _Other] = {}
        """Threads that run a call, by identity."""

    def install(self) -> None:
        """Handle the signal from now on, and what becomes of errors that nobody catches."""
        signal.signal(SIGNAL, self._on_signal)
        report = sys.unraisablehook

        def hook(lost: sys.UnraisableHookArgs, /) -> None:
            other = self._others.get(threading.get_ident())
            if other is not None and other.cancelled and lost.exc_type is TaskCancelledError:
                ask = (threading.get_ident(), other, hook.__code__)
                threading.Thread(
                    target=self._ask_again, args=ask, name="cancel again", daemon=True
                ).start()
                return
            if self._raised is None or lost.exc_value is not self._raised():
                report(lost)
                return
            self._reporting = self.running = True
            threading.Thread(target=self._insist, name="cancel again", daemon=True).start()
            self._reporting = False  # the last step: no handler runs between this and the return

        sys.unraisablehook = hook

    # --- the main thread

    def begin(self) -> None:
        """Note that user code begins on the main thread; raises if it is cancelled already."""
        self.running = True
        number = self._words[self._claimed]
        if number and number == self._words[self._cancelled]:  # 0 is the constructor
            self._raise()

    def _insist(self) -> None:
        """Interrupt the main thread again and again, until that ends the call."""
        number, pause = self._words[self._cancelled], threading.Event()
        while self.running and self._words[self._claimed] == number:
            signal.pthread_kill(self._main, SIGNAL)
            pause.wait(_AGAIN_S)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if self._reporting:
            return  # it will be tried again
        if self.running and self._words[self._claimed] == self._words[self._cancelled]:
            if self._depth:
                self._deferred = True
            else:
                self._raise()

    def _raise(self) -> None:
        self.running = False
        error = TaskCancelledError("the call was cancelled while it ran")
        self._raised = weakref.ref(error)
        raise error

    # --- other threads

    def run_elsewhere(self, number: int, function: Callable[[], Any]) -> Any:
        """Run a call on this thread, where `cancel` interrupts it; nothing comes afterwards."""
        ident = threading.get_ident()
        self._others[ident] = _Other(number)
        try:
            return function()
        finally:
            # Raised in here it goes to the caller all the same: a call is interrupted only once.
            with self._lock:
                del self._others[ident]
            _set_exception(ident, None)

    def cancel(self, number: int) -> None:
        """Interrupt the thread that runs a call, if one does."""
        with self._lock:
            for ident, other in self._others.items():
                if other.number == number and not other.cancelled:
                    other.cancelled = True
                    other.deferred = bool(other.depth)
                    if not other.depth:
                        _set_exception(ident, TaskCancelledError)

    def _ask_again(self, ident: int, other: _Other, hook: CodeType) -> None:
        """Interrupt a thread whose last interruption was lost, once it is out of `hook`."""
        pause = threading.Event()
        while _runs(ident, hook):
            pause.wait(_AGAIN_S)
        with self._lock:
            if self._others.get(ident) is other:  # the call goes on
                other.deferred = bool(other.depth)
                if not other.depth:
                    _set_exception(ident, TaskCancelledError)

    # --- as a context

    def __enter__(self) -> None:
        ident = threading.get_ident()
        if ident == self._main:
            self._depth += 1
        elif ident in self._others:
            with self._lock:
                self._others[ident].depth += 1

    def __exit__(self, *_: object) -> None:
        ident = threading.get_ident()
        if ident == self._main:
            self._depth -= 1
            if self._deferred and not self._depth:
                self._deferred = False
                if self.running and self._words[self._claimed] == self._words[self._cancelled]:
                    self._raise()
        elif ident in self._others:
            self._leave(self._others[ident])

    def _leave(self, other: _Other) -> None:
        with self._lock:
            other.depth -= 1
            late = other.deferred and not other.depth
            other.deferred = other.deferred and not late
        if late:
            raise TaskCancelledError("the call was cancelled while it ran")


# --- the driver's side: words on the line of the process


def announce_skip(board: Board, line: int) -> None:
    """Have the process look for calls to pass over before it begins the next one."""
    board.words[board.word_index(line, CANCELS)] += 1
    fence()  # before the caller looks at what has begun: one of the two sees the other


def may_run(board: Board, line: int, number: int) -> bool:
    """Tell whether a call may have begun, and not ended."""
    # 0: the constructor runs, or calls run elsewhere than on the main thread.
    return board.words[board.word_index(line, CLAIMED)] in (0, number)


def name_cancelled(board: Board, line: int, number: int) -> None:
    """Say which call the next `SIGNAL` is for."""
    board.words[board.word_index(line, CANCELLED)] = number


class _Other:
    """A call on another thread."""

    __slots__ = ("cancelled", "deferred", "depth", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.depth = 0
        self.cancelled = False
        self.deferred = False
        """Whether it is to raise when the message is whole."""


def _runs(ident: int, code: CodeType) -> bool:
    """Tell whether a thread is in a function."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001  documented, for debuggers
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _set_exception(ident: int, kind: type[BaseException] | None) -> None:
    """Have a thread raise, or no longer."""
    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised)
