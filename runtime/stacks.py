"""The Python stack of another process, without its help.

Every process that runs user code registers faulthandler for one signal at its start. On the signal
its main thread writes its Python stack to a pipe from inside the handler: in C, without the GIL, so
also while C code holds that. The driver reads the pipe.

* *Which thread.* The signal goes to the main thread (``tgkill``), which runs everything here that a
  graph waits for. Its handler reads no stack but its own: another thread's could change under it.
* *What it does to user code.* faulthandler asks for ``SA_RESTART``, and Python itself repeats what
  is interrupted (PEP 475). What remains is C code in a call that Linux never restarts (``poll``,
  ``nanosleep``: see signal(7)): it sees EINTR, as from any other signal.
* *Which signal.* ``SIGRTMAX - 3``, which is not known to be used (glibc has the first two real-time
  ones, thread libraries and timers take the next, tools the last). It ends a process that does not
  handle it: one that is starting, or has called ``exec``. So the driver looks first.
* *Where a stack ends.* faulthandler writes no end. The signal is blocked while its handler runs,
  which the kernel shows: once there is a head and the signal is neither pending nor blocked, the
  pipe holds the whole stack.
* *Who cannot answer.* A process that is stopped or in uninterruptible sleep is not asked: the
  answer is what the kernel says. One that still owes an answer is not asked again but waited for.

What does not work: asking the process's own thread or loop (it waits for the GIL, or for the main
thread); reading the memory from outside (needs ptrace, and knows one Python version at a time).
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import re
import select
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compiled_dag.attempts import attempts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIGNAL: Final = signal.SIGRTMAX - 3

_SYS_TGKILL: Final = {"x86_64": 234, "aarch64": 131}.get(os.uname().machine, 234)
_syscall: Final = ctypes.CDLL(None, use_errno=True).syscall

_HEAD: Final = b"Stack (most recent call first):\n"
_FRAME: Final = r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$'
_MOST_FRAMES: Final = 100
"""That faulthandler writes. Python 3.13 does not say when it leaves out what is deeper."""
_ENDED: Final = "its process has ended"
_HANDLER_S: Final = 0.001
"""How often to look whether a handler that has begun to write is done; it takes far less."""
_OWN_FOLDERS: Final = tuple(
    str(Path(__file__).parent.parent / package) + os.sep
    for package in ("compiled_dag", "collective", "runtime")
)
_CHUNK_BYTES: Final = 64 * 1024
_BIT: Final = 1 << (SIGNAL - 1)


def register(fd: int) -> None:
    """Write this process's stack to `fd` whenever it is asked for; to be called once, early."""
    os.set_inheritable(fd, False)
    os.set_blocking(fd, False)  # a driver that does not read must not stop us in the handler
    faulthandler.register(SIGNAL, fd, all_threads=False, chain=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})


def unregister(fd: int) -> None:
    """Undo `register`, in a forked child."""
    faulthandler.unregister(SIGNAL)
    with contextlib.suppress(OSError):  # a grandchild: its parent closed it already
        os.close(fd)


class StackPipe:
    """The driver's end of one process's pipe. Owns the descriptor; `close` is idempotent."""

    def __init__(self) -> None:
        """Make the pipe; the other end is `theirs`, for the process, and not ours to keep.

        Raises:
            OSError: The kernel refused.
        """
        self._fd, self.theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self._inode = os.fstat(self._fd).st_ino

    def borrow(self) -> int:
        """Return a duplicate that no other thread closes; -1 if the pipe is closed.

        No lock: a child forked while another thread has it could not close its copy.
        """
        try:
            copy = os.dup(self._fd)
        except OSError:
            return -1
        if os.fstat(copy).st_ino == self._inode:
            return copy
        os.close(copy)  # closed between two lines, and its number is another's by now
        return -1

    def close(self) -> None:
        """Close our end."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A process whose stack is asked for."""

    key: int
    pid: int
    pipe: StackPipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What was found: a stack, or why there is none."""

    frames: tuple[str, ...] = ()
    """``File "...", line ..., in ...``; the most recent call last; without our own frames."""
    state: str = ""
    """Why there is no stack: what the kernel says of the process."""


class Stacks:
    """Takes stacks, one asking at a time; who comes meanwhile gets what is found by then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun_s = 0.0
        self._found: Mapping[int, Stack] = {}

    def take(self, subjects: Sequence[Subject], deadline: float) -> Mapping[int, Stack]:
        """Return what each process is doing, by key, at the latest soon after `deadline`."""
        asked_s = time.monotonic()
        for taken in attempts(self._lock.acquire, max(0.0, deadline - asked_s)):
            if taken:
                try:
                    return self._since(asked_s, subjects, deadline)
                finally:
                    self._lock.release()
            break
        text = "not asked: the stacks of other processes took too long"
        return {subject.key: Stack(state=text) for subject in subjects}

    def _since(
        self, asked_s: float, subjects: Sequence[Subject], deadline: float
    ) -> Mapping[int, Stack]:
        """Take them, unless somebody has since then."""
        if self._begun_s < asked_s or any(one.key not in self._found for one in subjects):
            self._begun_s = time.monotonic()
            self._found = _take_all(subjects, deadline)
        return self._found


def _take_all(subjects: Sequence[Subject], deadline: float) -> dict[int, Stack]:
    found: dict[int, Stack] = {}
    with contextlib.ExitStack() as closing:
        waiting: dict[int, _Answer] = {}
        for subject in subjects:
            asked = _ask(subject)
            if isinstance(asked, Stack):
                found[subject.key] = asked
            else:
                waiting[asked.fd] = asked
                closing.callback(os.close, asked.fd)
        found.update(_collect(waiting, deadline))
    return found


def _collect(waiting: dict[int, _Answer], deadline: float) -> dict[int, Stack]:
    """Read until all have answered, or `deadline`."""
    found = {}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        begun = any(answer.data for answer in waiting.values())
        for fd, _ in poll.poll(min(left_s, _HANDLER_S if begun else left_s) * 1000):
            waiting[fd].read()
        for fd, answer in list(waiting.items()):
            stack = answer.stack()
            if stack is not None:
                found[answer.subject.key] = stack
                poll.unregister(fd)
                del waiting[fd]
    for answer in waiting.values():
        found[answer.subject.key] = Stack(state=answer.why_late())
    return found


def _ask(subject: Subject) -> _Answer | Stack:
    """Send the signal, or say why not."""
    status = _Status.of(subject.pid)
    if status is None:
        return Stack(state=_ENDED)
    if why := status.why_silent():
        return Stack(state=why)
    fd = subject.pipe.borrow()
    if fd < 0:
        return Stack(state=_ENDED)
    answer = _Answer(subject=subject, fd=fd)
    if not status.busy:
        answer.read()
        answer.data.clear()  # what came too late for an earlier question
        if _syscall(_SYS_TGKILL, subject.pid, subject.pid, int(SIGNAL)):
            os.close(fd)
            return Stack(state=_ENDED)
    return answer


@dataclass(slots=True, kw_only=True)
class _Answer:
    """What has come of a stack so far."""

    subject: Subject
    fd: int
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def read(self) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):  # that is all for now
            while data := os.read(self.fd, _CHUNK_BYTES):
                self.data += data
            self.ended = True

    def stack(self) -> Stack | None:
        """Return the stack once it is whole."""
        if self.ended:
            return Stack(state=_ENDED)
        _, head, _ = self.data.partition(_HEAD)
        if not head:
            return None
        status = _Status.of(self.subject.pid)
        if status is None:
            return Stack(state=_ENDED)
        if status.busy:
            return None
        self.read()  # after the look: now all of it is there
        _, _, text = self.data.rpartition(_HEAD)
        return Stack(frames=frames_of(text.decode(errors="replace")))

    def why_late(self) -> str:
        """Return why there is no stack although it was asked for."""
        status = _Status.of(self.subject.pid)
        if status is None:
            return _ENDED
        return status.why_silent() or f"it did not answer in time ({status.kernel})"


def frames_of(text: str) -> tuple[str, ...]:
    """Turn what faulthandler writes into lines, the most recent call last.

    Our own frames are left out, unless there are no others.
    """
    frames = []
    for line in text.splitlines():
        match = re.match(_FRAME, line)
        if match:
            own = match[1].startswith(_OWN_FOLDERS) or match[1] == "<string>"
            frames.append((own, f'File "{match[1]}", line {match[2]}, in {match[3]}'))
    if len(frames) == _MOST_FRAMES:
        frames.append((False, f"... (no more than {_MOST_FRAMES} are shown)"))
    users = [text for own, text in frames if not own]
    chosen = users or [text for _, text in frames]
    return tuple(reversed(chosen))


# --- what the kernel says -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status:
    """Of a process and its main thread."""

    state: str
    """One letter and a word, for example ``S (sleeping)``."""
    handles: bool
    """Whether it handles our signal."""
    busy: bool
    """Whether our signal is pending, or its handler runs."""
    where: str
    """Function of the kernel that it waits in, where that may be known."""

    @classmethod
    def of(cls, pid: int) -> _Status | None:
        """Look; None if there is no such process."""
        try:
            text = Path(f"/proc/{pid}/status").read_text(errors="replace")
        except OSError:
            return None
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        taken = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16) | int(fields["SigBlk"], 16)
        where = ""
        with contextlib.suppress(OSError):  # not for us to know
            where = Path(f"/proc/{pid}/wchan").read_text(errors="replace")
        return cls(
            state=fields["State"].strip(),
            handles=bool(int(fields["SigCgt"], 16) & _BIT),
            busy=bool(taken & _BIT),
            where="" if where == "0" else where,
        )

    @property
    def kernel(self) -> str:
        """The kernel's words."""
        return f"kernel state {self.state}{f' in {self.where}' if self.where else ''}"

    def why_silent(self) -> str:
        """Return why the process would not answer; empty if it would."""
        match self.state[:1]:
            case "T":
                return f"stopped by a signal; SIGCONT lets it go on ({self.kernel})"
            case "t":
                return f"stopped by a debugger ({self.kernel})"
            case "D":
                return f"in an uninterruptible system call ({self.kernel})"
            case "Z" | "X":
                return _ENDED
        if not self.handles:
            return f"its process is starting, or runs another program ({self.kernel})"
        return ""
