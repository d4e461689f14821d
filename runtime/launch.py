"""Starting a zygote's process.

It is the first thing `init` does, before it imports what a session consists of: so both import at
the same time. That is why next to nothing is imported here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONSTANT: Final[Mapping[str, str]] = {
    # What NCCL's own watchdogs do by default (end the process) is the session's job here.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    # Seconds. While a communicator connects nobody can abort it, and torch's own limit is 30 min.
    "TORCH_NCCL_NONBLOCKING_TIMEOUT": "120",
    "NCCL_RAS_ENABLE": "0",
    # Several communicators of a process launch in the order of the program.
    "NCCL_LAUNCH_ORDER_IMPLICIT": "1",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
_FIRST_FREE_FD: Final = 10
"""Above the numbers that the zygote expects its descriptors at (3 to 5)."""
_END_S: Final = 2.0

_CODE: Final = "import sys; sys.path[:] = {path!r}; from runtime.zygote import main; main()"


class Launch:
    """A zygote's process that was started a moment ago, and our end of its socket."""

    def __init__(self, board_fd: int) -> None:
        """Start a zygote; returns before it has imported anything.

        Raises:
            OSError: The kernel refused.
        """
        self.control, theirs = socket.socketpair()
        driver = os.pidfd_open(os.getpid())
        try:
            self.pid = start_process((theirs.fileno(), board_fd, driver))
        except BaseException:
            self.control.close()
            raise
        finally:
            theirs.close()
            os.close(driver)

    def abandon(self) -> None:
        """End the process again: nobody has taken it over."""
        self.control.close()
        end(self.pid)


def start_process(fds: tuple[int, ...]) -> int:
    """Start the zygote with `fds` at 3, 4, ...; returns its process id."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in fds]
    try:
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 2, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + index) for index, fd in enumerate(high)]
        code = _CODE.format(path=absolute_path())
        arguments = [sys.executable, "-c", code]
        # One thread: a library's thread pool would not survive the fork.
        environment = base_environment() | {"OPENBLAS_NUM_THREADS": "1"}
        return os.posix_spawn(
            sys.executable, arguments, environment, file_actions=actions, setpgroup=0
        )
    finally:
        for fd in high:
            os.close(fd)


def base_environment() -> dict[str, str]:
    """Return this process's environment with what torch and NCCL need in actors."""
    return {**_CONSTANT, **os.environ}


def absolute_path() -> list[str]:
    """Return ``sys.path`` as it is understood from any folder."""
    # Without pathlib, which takes 5 ms to import.
    return [
        entry if os.path.isabs(entry) else os.path.join(os.getcwd(), entry).rstrip("/")
        for entry in sys.path
    ]


def end(pid: int) -> None:
    """Have a zygote end that has no actors any more, and reap it."""
    with contextlib.suppress(ProcessLookupError):  # it has ended, and somebody has reaped it
        os.kill(pid, signal.SIGTERM)  # heeded as long as it is importing
    wait(pid, time.monotonic() + _END_S)
    with contextlib.suppress(ChildProcessError):  # somebody else has waited for all children
        os.waitpid(pid, 0)


def wait(pid: int, deadline: float) -> None:
    """Wait until a process has ended, and kill it at the deadline."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        wait_pidfd(pidfd, deadline)
    finally:
        os.close(pidfd)


def wait_pidfd(pidfd: int, deadline: float) -> None:
    """Wait until the process behind a pidfd has ended, and kill it at the deadline."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        with contextlib.suppress(ProcessLookupError):  # it has ended right now
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll(_END_S * 1000)
