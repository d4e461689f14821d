"""An actor's output: lines go to the driver's standard error, the last ones stay for its obituary.

Memory is bounded whatever an actor prints: a line that does not end is passed on in pieces.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.dedup import Deduplicator

TAIL_LINES: Final = 50
_TAIL_BYTES: Final = 16 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_CHUNKS_AT_ONCE: Final = 8
"""Then others have their turn: one actor's flood must not keep the replies of the rest waiting."""
_LAST_CHUNKS: Final = 64
"""What may still be in a dead actor's pipe (a forked child of it may go on writing for ever)."""


class LogStream:
    """The driver's end of one actor's standard output or standard error. Owns the descriptor."""

    def __init__(
        self, fd: int, sink: Deduplicator | None, source: int, prefix: Callable[[], bytes]
    ) -> None:
        """Take over the descriptor.

        Args:
            fd: The pipe's end.
            sink: Where lines go; None: nowhere.
            source: Number of the process.
            prefix: Returns what to put before each line now.
        """
        os.set_blocking(fd, False)
        self.fd = fd
        self._prefix = prefix
        self._sink = sink
        self._source = source
        self._rest = b""
        self._tail = b""

    def read(self, chunks: int = _CHUNKS_AT_ONCE) -> bool:
        """Pass on what is there; returns False at the end of the stream."""
        for _ in range(chunks):
            try:
                data = os.read(self.fd, _CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            if self._sink is not None:
                self._pass_on(data)
        return True

    def finish(self) -> None:
        """Read what is left, pass on an unfinished line and close. Idempotent."""
        if self.fd < 0:
            return
        self.read(_LAST_CHUNKS)
        if self._rest:
            self._write(self._rest + b"\n")
            self._rest = b""
        self.close()

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def tail(self) -> str:
        """Return the last lines."""
        return "\n".join(self._tail.decode(errors="replace").splitlines()[-TAIL_LINES:])

    def _pass_on(self, data: bytes) -> None:
        lines, newline, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > _CHUNK_BYTES:
            lines, newline, rest = lines + newline + rest, b"\n", b""
        self._rest = rest
        if newline:
            self._write(lines + newline)

    def _write(self, lines: bytes) -> None:
        if self._sink is not None:
            self._sink.feed(self._source, self._prefix(), lines)


def write_to_stderr(lines: bytes) -> None:
    """Show lines on the driver's standard error."""
    # It may be closed or gone: an actor must not suffer from that.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(lines.decode(errors="replace"))
        sys.stderr.flush()
