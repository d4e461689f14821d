"""What this process owns, and what a test left of it.

`snapshot()` lists every resource that outlives a careless test; `leftovers(before)` lists what is
new since then, as lines for a person. `settle(before)` gives closing a moment before it judges.

Descendants are found in two ways. The parent chain in /proc/PID/stat finds children, zombies
included, but not an orphan, whose parent is init. An orphan still carries the mark that
`mark_descendants()` put into the environment of everything this process starts, so
/proc/PID/environ finds it. The session id is no third way: other programs of the same terminal
share it.

What stays on purpose is left out: the helper processes of multiprocessing, and thread pools that
torch or a BLAS keep for the life of the process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np  # noqa: F401  before the first snapshot: it starts a pool of threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROC = Path("/proc")
SHM = Path("/dev/shm")
TEMP_PREFIX = "compiled-dag"
MARK = "COMPILED_DAG_TEST_RUN"
SETTLE_S = 30.0
POLL_S = 0.01

# Libraries that start native threads on first use and keep them, and the names these threads bear.
POOL_LIBRARIES = ("torch", "sklearn", "scipy")
POOL_THREADS = ("pt_autograd", "cuda")
# numpy's OpenBLAS ends its pool at every fork and starts it again when next used.
NUM_BLAS_THREADS = (os.cpu_count() or 1) - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one process owns at one moment; each entry reads well in a report."""

    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    named_threads: frozenset[tuple[int, str]]
    """Native threads under a name of their own, by thread id."""
    num_pool_threads: int
    """Native threads under the name of the process: OpenMP and the like."""
    processes: frozenset[tuple[int, int]]
    """Descendants as (pid, start time): a pid alone may be used again."""
    shm_names: frozenset[str]
    temp_names: frozenset[str]
    mappings: frozenset[tuple[str, str]]
    """Mappings of memfds as (address range, name)."""


def mark_descendants() -> None:
    """Mark whatever this process starts from now on, so that its orphans can be found."""
    os.environ[MARK] = str(os.getpid())


def snapshot() -> Snapshot:
    """Return what this process owns now."""
    named, num_pool = _native_threads()
    return Snapshot(
        descriptors=frozenset(_descriptors()),
        threads=frozenset(threading.enumerate()),
        named_threads=frozenset(named),
        num_pool_threads=num_pool,
        processes=frozenset((p.pid, p.started) for p in descendants()),
        shm_names=frozenset(_names(SHM)),
        temp_names=frozenset(_names(Path(tempfile.gettempdir()), TEMP_PREFIX)),
        mappings=frozenset(_memfd_mappings()),
    )


def settle(before: Snapshot, timeout_s: float = SETTLE_S) -> list[str]:
    """Wait until nothing is left over since `before`; return what still is after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while (left := leftovers(before)) and time.monotonic() < deadline:
        gc.collect()  # costs far more than the look: only when there is something left
        pause.wait(POLL_S)
    return left


def leftovers(before: Snapshot) -> list[str]:
    """Return what this process owns that `before` lacks, a line each."""
    now = snapshot()
    return [
        *(_describe_process(pid) for pid, _ in sorted(now.processes - before.processes)),
        *(_describe_descriptor(*d) for d in sorted(now.descriptors - before.descriptors)),
        *(f"thread {t.name!r} (daemon={t.daemon})" for t in now.threads - before.threads),
        *(
            f"native thread {tid} {name!r}"
            for tid, name in now.named_threads - before.named_threads
        ),
        *_extra_pool_threads(before, now),
        *(f"name {SHM / name}" for name in sorted(now.shm_names - before.shm_names)),
        *(f"temporary {name}" for name in sorted(now.temp_names - before.temp_names)),
        *(f"mapping {where} {name}" for where, name in sorted(now.mappings - before.mappings)),
    ]


def end_new_processes(before: Snapshot) -> None:
    """Kill descendants that are new since `before`, so that one leak spoils one test only."""
    for process in descendants():
        if (process.pid, process.started) in before.processes:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)


# --- processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One line of /proc/PID/stat, as far as it matters here."""

    pid: int
    parent: int
    state: str
    started: int


def descendants() -> list[Process]:
    """Return the live and zombie descendants of this process, orphans included."""
    processes = {p.pid: p for p in _all_processes()}
    helpers = _helper_pids()
    own = os.getpid()
    return [
        p
        for p in processes.values()
        if p.pid != own
        and not helpers & {p.pid, *_ancestors(p, processes)}
        and (own in _ancestors(p, processes) or _is_marked(p))
    ]


def _all_processes() -> Iterator[Process]:
    # As plain descriptors: this is done four times a test, for all processes of the machine.
    for name in os.listdir(PROC):  # noqa: PTH208
        if name.isdigit() and (stat := _unless_gone(lambda name=name: _read(f"/proc/{name}/stat"))):
            # The command may hold blanks and parentheses; the fields start behind its last one.
            state, parent, *fields = stat[stat.rindex(b")") + 2 :].split()
            yield Process(
                pid=int(name),
                parent=int(parent),
                state=state.decode(),
                started=int(fields[17]),
            )


def _read(path: str) -> bytes:
    """Return what a file of /proc says, which may be longer than one read gives."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _ancestors(process: Process, processes: dict[int, Process]) -> Iterator[int]:
    while process.parent in processes:
        yield process.parent
        process = processes[process.parent]


def _is_marked(process: Process) -> bool:
    key = process.pid, process.started
    if key in _strangers:
        return False
    environment = _unless_gone(lambda: _read(f"/proc/{process.pid}/environ")) or b""
    found = f"{MARK}={os.getpid()}".encode() in environment.split(b"\0")
    if not found and environment:
        _strangers.add(key)
    return found


_strangers: set[tuple[int, int]] = set()
"""Processes (pid, start time) that were seen without the mark: they never get it."""


def _helper_pids() -> set[int]:
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    server = getattr(forkserver, "_forkserver", None)
    pids = {getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)}
    return {pid for pid in pids if pid is not None}


def _describe_process(pid: int) -> str:
    raw = _unless_gone((PROC / str(pid) / "cmdline").read_bytes) or b""
    command = raw.replace(b"\0", b" ").decode(errors="replace").strip()
    state = next((p.state for p in _all_processes() if p.pid == pid), "gone")
    return f"process {pid} state {state}: {command}"


# --- threads


def _native_threads() -> tuple[list[tuple[int, str]], int]:
    """Return the threads Python does not know: the ones with a name, and how many without."""
    known = {thread.native_id for thread in threading.enumerate()}
    inherited = _thread_name(os.getpid())
    names = {
        tid: name
        for tid in (int(entry.name) for entry in (PROC / "self" / "task").iterdir())
        if tid not in known and (name := _thread_name(tid))
    }
    named = [
        (tid, name)
        for tid, name in names.items()
        if name != inherited and not name.startswith(POOL_THREADS)
    ]
    return named, sum(name == inherited for name in names.values())


def _thread_name(tid: int) -> str | None:
    name = _unless_gone((PROC / "self" / "task" / str(tid) / "comm").read_text)
    return name.strip() if name else None


def _extra_pool_threads(before: Snapshot, now: Snapshot) -> Iterator[str]:
    extra = now.num_pool_threads - max(before.num_pool_threads, NUM_BLAS_THREADS)
    if extra > 0 and sys.modules.keys().isdisjoint(POOL_LIBRARIES):
        yield f"{extra} native threads that Python does not know"


# --- descriptors, names, mappings


def _descriptors() -> Iterator[tuple[int, str]]:
    ours = {
        getattr(getattr(resource_tracker, "_resource_tracker", None), "_fd", None),
        getattr(getattr(forkserver, "_forkserver", None), "_forkserver_alive_fd", None),
    }
    for entry in (PROC / "self" / "fd").iterdir():
        target = _unless_gone(entry.readlink)
        if target and (fd := int(entry.name)) not in ours:
            yield fd, str(target)


def _describe_descriptor(fd: int, target: str) -> str:
    return f"descriptor {fd} -> {target}{_socket_details(target)}"


def _socket_details(target: str) -> str:
    if not target.startswith("socket:["):
        return ""
    inode = target[len("socket:[") : -1]
    for table in ("unix", "tcp", "tcp6", "udp", "udp6"):
        for line in (PROC / "net" / table).read_text().splitlines():
            if inode in line.split():
                return f" ({table}: {line.strip()})"
    return ""


def _names(directory: Path, prefix: str = "") -> Iterator[str]:
    for entry in directory.glob(f"{prefix}*"):
        status = _unless_gone(entry.lstat)
        if status and status.st_uid == os.getuid():
            yield entry.name


def _memfd_mappings() -> Iterator[tuple[str, str]]:
    for line in (PROC / "self" / "maps").read_text().splitlines():
        if "memfd:" in line:
            where, _, _, _, _, name = line.split(maxsplit=5)
            yield where, name


def _unless_gone(read: Callable[[], T]) -> T | None:
    """Return `read()`, or None if what it reads ended meanwhile or is not ours."""
    try:
        return read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
