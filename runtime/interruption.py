"""Interrupting what runs on the main thread: how a running call is cancelled.

The driver writes the call's number on the board and sends a signal. Python runs its handler on the
main thread between two instructions, and it raises there, unless the number is not that of what
runs now, or the thread is in the middle of a message: then it raises right after that.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import TaskCancelledError
from compiled_dag.shm.board import CANCELLED, CLAIMED

if TYPE_CHECKING:
    from compiled_dag.shm.board import Board

SIGNAL = signal.SIGURG
"""Ignored by default, so one that comes too early does no harm."""


class Interruption:
    """Whether what runs may be interrupted. As a context: not now, but afterwards."""

    def __init__(self, board: Board, line: int) -> None:
        self._words = board.words
        self._claimed = board.word_index(line, CLAIMED)
        self._cancelled = board.word_index(line, CANCELLED)
        self._main = threading.main_thread().ident
        self._depth = 0
        self._deferred = False
        self.running = False
        """Whether user code runs on the main thread."""

    def install(self) -> None:
        """Handle the signal from now on."""
        signal.signal(SIGNAL, self._on_signal)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if self.running and self._words[self._claimed] == self._words[self._cancelled]:
            if self._depth:
                self._deferred = True
            else:
                self._raise()

    def _raise(self) -> None:
        self.running = False
        raise TaskCancelledError("the call was cancelled while it ran")

    def __enter__(self) -> None:
        if threading.get_ident() == self._main:
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == self._main:
            self._depth -= 1
            if self._deferred and not self._depth:
                self._deferred = False
                if self.running and self._words[self._claimed] == self._words[self._cancelled]:
                    self._raise()
