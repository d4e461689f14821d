"""Zygotes for the sessions of a test run, forked from one process that has imported torch.

A session's zygote imports numpy and torch, a second or more of a core, and every test that is
marked `proc` has a session. So one process of the run imports once, and forks what the sessions ask
for; from there on they are zygotes like all others. Drivers in processes of their own start theirs
as users' do, and so do the tests of the module or fixture `own_zygotes`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
import sys
from typing import TYPE_CHECKING

from runtime import launch

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTROL_FD = 3
_ALIVE = b"."
_CODE = "import sys; sys.path[:] = {path!r}; from tests.incubator import main; main()"
_MOST_BYTES = 1 << 20


class Incubator:
    """The process, as the test run sees it."""

    def __init__(self) -> None:
        """Start it; returns once it has imported."""
        self._owner = os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._pid = _spawn(theirs.fileno())
        assert self._control.recv(1) == _ALIVE, "the incubator could not be started"

    def start_process(self, fds: tuple[int, ...]) -> int:
        """Start a zygote as `runtime.launch` does: `fds` at 3, 4, ...; returns its process id."""
        if self._owner != os.getpid():
            return START(fds)  # a forked child of the test run
        environment = launch.base_environment() | {"OPENBLAS_NUM_THREADS": "1"}
        message = pickle.dumps((environment, launch.absolute_path()))
        socket.send_fds(self._control, [message], [2, *fds])
        return int(self._control.recv(32))

    def close(self) -> None:
        """End the process."""
        self._control.close()
        os.waitpid(self._pid, 0)


START = launch.start_process
"""What sessions start zygotes with outside of tests."""


def _spawn(control: int) -> int:
    high = os.dup(control)
    while high <= _CONTROL_FD:
        high = os.dup(control)
    code = _CODE.format(path=launch.absolute_path())
    environment = launch.base_environment() | {"OPENBLAS_NUM_THREADS": "1"}
    actions = [(os.POSIX_SPAWN_DUP2, high, _CONTROL_FD)]
    arguments = [sys.executable, "-c", code]
    pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=actions)
    os.close(high)
    return pid


# --- in the process itself


def main() -> None:
    """Import, then fork a zygote for each message, until the test run ends."""
    from runtime import worker, zygote

    with contextlib.suppress(ImportError):
        import torch  # noqa: F401  what takes so long
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for zygotes
    worker.close_descriptors({0, 1, 2, _CONTROL_FD})
    gc.collect()
    gc.freeze()  # every zygote collects once before it serves: nothing of this again
    control = socket.socket(fileno=_CONTROL_FD)
    control.send(_ALIVE)
    while True:
        message, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, 8)
        if not message:
            return
        pid = os.fork()
        if not pid:
            _hatch(message, fds, zygote.main)
        for fd in fds:
            os.close(fd)
        control.send(str(pid).encode())


def _hatch(message: bytes, fds: Sequence[int], become: object) -> None:
    """Be a zygote, with the environment and the descriptors of its session."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    environment, path = pickle.loads(message)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    high = [os.dup(fd) for fd in fds]
    for target, fd in zip((2, 3, 4, 5), high, strict=True):
        os.dup2(fd, target)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        become()
    finally:
        os._exit(1)
