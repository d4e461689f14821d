"""Outcomes that nobody here need wait for, those of futures: a thread reads until they come."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.objects import ObjectRef


class Bringing:
    """What is awaited so, and the thread, which lives while there is any. Any thread may use it."""

    def __init__(self, wait_until: Callable[[Callable[[], bool], float | None], bool]) -> None:
        """Begin without a thread; `wait_until` reads, and raises when the session has ended."""
        self._wait_until = wait_until
        self._lock = threading.Lock()
        self._awaited: list[ObjectRef] = []
        self._reader: threading.Thread | None = None

    def add(self, refs: Sequence[ObjectRef]) -> None:
        """Have outcomes read that were asked for."""
        with self._lock:
            self._awaited += [ref for ref in refs if not ref.done]
            if self._awaited and (self._reader is None or not self._reader.is_alive()):
                self._reader = threading.Thread(target=self._read, name="outcomes", daemon=True)
                self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(RuntimeError):  # the session has ended, and the process with it
            while True:
                self._wait_until(self._none_awaited, None)
                with self._lock:
                    self._awaited = [ref for ref in self._awaited if not ref.done]
                    if not self._awaited:
                        self._reader = None
                        return

    def _none_awaited(self) -> bool:
        return all(ref.done for ref in self._awaited)
