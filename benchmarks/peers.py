"""Run a peer: each work in a process of its environment, bounded in time.

A peer that hangs or fails costs its figures, never the table: the row says what happened instead.
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

from benchmarks.registry import Config, Peer, peer
from benchmarks.rounds import Side, SideFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
PYTHON_VARIABLE = "COMPILED_DAG_PEER_PYTHON"
START_LIMIT_S = 60.0
BLOCK_LIMIT_S = 90.0
_QUIET = {"RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


def python() -> Path:
    """Return the interpreter of the peer's environment.

    Raises:
        FileNotFoundError: There is none; says how to make it.
    """
    found = Path(os.environ.get(PYTHON_VARIABLE) or ROOT / ".peer-venv" / "bin" / "python")
    if not found.exists():
        raise FileNotFoundError(
            f"no interpreter for the peer at {found}: `make bench` makes one, or set "
            f"{PYTHON_VARIABLE} to one that can import ray"
        )
    return found


def environment() -> dict[str, str]:
    """Return the environment of a peer's process: it finds this package, and is quiet."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **_QUIET, "PYTHONPATH": str(ROOT)}


@contextmanager
def serving(name: str, what: str, config: Config) -> Iterator[Side]:
    """Start a work in the environment of the peer; every failure of it is a `SideFailedError`."""
    arguments = [str(python()), "-m", "benchmarks.serve", name, what, str(config.trips)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )
        served = _Served(process, name, errors)
        try:
            served.answer(START_LIMIT_S)
            yield Side(name=name, block=served.block)
        finally:
            served.close()


class _Served:
    """A peer's process."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, errors: IO[bytes]) -> None:
        self._process = process
        self._name = name
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
            _kill_session(self._process.pid)
            self._process.wait()
            self._process.stdout.close()


def _kill_session(leader: int) -> None:
    """Kill what is left of a session: the peer's daemons form process groups of their own."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == leader:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (OSError, ValueError):  # it has ended meanwhile
            continue


peer(Peer(name="ray", help="Ray in the environment that `make bench` makes", open=serving))
