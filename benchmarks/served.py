"""Measure in another process, which answers with the nanoseconds of so many trips, line by line.

The process says ``ready`` first; it reads a number of trips a line and answers with a JSON list. It
ends with its standard input. One that hangs or fails is a `SideFailedError`, never a lost table.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from benchmarks.rounds import Side, SideFailedError
from benchmarks.sessions import signal_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 60.0
BLOCK_LIMIT_S = 90.0


@contextmanager
def served(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Side]:
    """Start a process and make a side of it."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
        side = _Served(process, errors)
        try:
            side.answer(START_LIMIT_S)
            yield Side(name=name, block=side.block)
        finally:
            side.close()


class _Served:
    """Such a process."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._pending = b""

    def block(self, trips: int) -> Sequence[int]:
        """Time so many trips there."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"%d\n" % trips)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailedError(self._end()) from None
        times: list[int] = json.loads(self.answer(BLOCK_LIMIT_S))
        return times

    def answer(self, limit_s: float) -> bytes:
        """Wait for one line."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([fd], [], [], limit_s)[0]:
                raise SideFailedError(f"timed out after {limit_s:g} s")
            data = os.read(fd, 1 << 16)
            if not data:
                raise SideFailedError(self._end())
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _end(self) -> str:
        """Return why the process has ended."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"ended with {code}: {lines[-1] if lines else 'no output'}"

    def close(self) -> None:
        """End the process and all it has started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        finally:
            signal_session(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdout.close()
