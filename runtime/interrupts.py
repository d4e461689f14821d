"""Ctrl-C while a session ends, or a reply is handled: at a good moment, never half-way."""

from __future__ import annotations

# `signal` makes enums of what it is given and returns, which would take 5 us of every `get`.
import _signal  # type: ignore[import-not-found]
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType


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
        previous = _signal.getsignal(_signal.SIGINT)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and callable(previous):  # neither ignored nor the end of the process
            self._previous = previous
            _signal.signal(_signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._previous is not None:
            _signal.signal(_signal.SIGINT, self._previous)
            if self.pending and kind is None and not self._forget:
                self._previous(_signal.SIGINT, None)
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
