"""The same line from several processes, shown once.

The first process to print a line is shown at once. Others that print the same text within some
seconds are counted, and then shown in one line: ``(A pid=7) text [repeated 3x across processes]``.
What a process repeats by itself is never held back.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE: Final = "COMPILED_DAG_DEDUP_LOGS"
WINDOW_S: Final = 5.0
_MOST_LINES: Final = 200
"""In one piece of output; more is a flood, which is passed on as it is."""
_MOST_KNOWN: Final = 1000
"""Lines remembered at once."""
_LONGEST: Final = 1000
"""Characters of a line that is remembered."""


@dataclass(slots=True)
class _Known:
    """A line that was shown."""

    until: float
    first: int
    """Who printed it first."""
    prefix: bytes = b""
    """Of the last process whose copy is held back."""
    repeats: int = 0


class Deduplicator:
    """Passes on what processes print. For one thread, but for `flush` when that has ended."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        call_later: Callable[[float, Callable[[], None]], None],
        *,
        enabled: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember nothing yet.

        Args:
            write: Shows whole lines.
            call_later: Runs a function after so many seconds.
            enabled: Whether to hold anything back; None: as the environment says.
            clock: Seconds.
        """
        self._write = write
        self._call_later = call_later
        self._enabled = os.environ.get(VARIABLE) != "0" if enabled is None else enabled
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._timed = False

    def feed(self, source: int, prefix: bytes, lines: bytes) -> None:
        """Pass on whole lines.

        Args:
            source: Who printed them.
            prefix: What to put before each.
            lines: Ends with a newline.
        """
        split = lines[:-1].split(b"\n")
        if self._enabled and len(split) <= _MOST_LINES:
            self._flush_due()
            split = [line for line in split if self._is_shown(source, prefix, line)]
        if split:
            self._write(b"".join([prefix + line + b"\n" for line in split]))

    def flush(self) -> None:
        """Show what is held back."""
        for line in list(self._known):
            self._forget(line)

    def _is_shown(self, source: int, prefix: bytes, line: bytes) -> bool:
        """Take note of a line; returns whether to show it now."""
        known = self._known.get(line)
        if known is None:
            if len(self._known) < _MOST_KNOWN and len(line) <= _LONGEST:
                self._known[line] = _Known(self._clock() + WINDOW_S, source)
            return True
        if known.first == source:
            return True
        known.repeats += 1
        known.prefix = prefix
        if not self._timed:
            self._timed = True
            self._call_later(WINDOW_S, self._on_time)
        return False

    def _on_time(self) -> None:
        self._timed = False
        self._flush_due()
        left = [known.until for known in self._known.values() if known.repeats]
        if left:
            self._timed = True
            self._call_later(max(0.0, min(left) - self._clock()), self._on_time)

    def _flush_due(self) -> None:
        now = self._clock()
        due = []
        for line, known in self._known.items():
            if known.until > now:
                break  # they stand in the order of their time
            due.append(line)
        for line in due:
            self._forget(line)

    def _forget(self, line: bytes) -> None:
        known = self._known.pop(line)
        if known.repeats == 1:
            self._write(known.prefix + line + b"\n")
        elif known.repeats:
            text = f" [repeated {known.repeats}x across processes]\n".encode()
            self._write(known.prefix + line + text)
