"""The process that actors are forked from.

Importing numpy and torch takes seconds, forking a process that has done so takes milliseconds. So
`init` starts one process that imports, stays single-threaded, runs nothing (fork after a parallel
torch operation hangs the child) and forks one child per actor.

There are two stages. The first imports numpy and this project. When the driver asks for it, as soon
as anything says that the session uses torch (`runtime.torch_use`), it forks the second, which
imports torch besides: a session without torch pays neither its time nor its memory. Each stage
serves its own socket; the driver chooses.

A zygote is the parent of its actors. It sees their end by pidfd, kills what is left of their
process group *before* it reaps them (until then the group's number cannot be used again), and
reports the exit status. When the driver dies, it kills them all: also an actor whose main thread
holds the GIL in C code, where no Python thread of its own could act. There is no PDEATHSIG on
actors, so they live on when a zygote dies.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np  # noqa: F401  for all actors: they share what is imported here

import collective.group
import collective.plain  # noqa: F401  for actors in graphs
import compiled_dag.driver  # noqa: F401  for actors that compile some
import runtime.runtime_context  # noqa: F401  for those that ask where they are
from compiled_dag.shm.board import Board
from runtime import wire, worker
from runtime.messages import AddStage, Exited, Ready, Spawn, Spawned, SpawnFailed

_TORCH_STAGE: Final = 0
"""Stands for the second stage in the first one's table of children."""

CONTROL_FD, BOARD_FD, DRIVER_FD = 3, 4, 5
"""Where the driver puts the descriptors: the control socket, the board, the driver's pidfd."""


def main() -> None:
    """Run the first stage."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker.close_descriptors({0, 1, 2, CONTROL_FD, BOARD_FD, DRIVER_FD})
    _Zygote(socket.socket(fileno=CONTROL_FD), Board(BOARD_FD)).run()


def _run_torch_stage(control: int, board: Board) -> None:
    """Serve from a process that has imported torch; never returns."""
    worker.close_descriptors({0, 1, 2, control, BOARD_FD, DRIVER_FD})
    # Until this stage serves, SIGTERM ends an import that nobody waits for.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # importing torch makes next to no garbage, and looking for it takes 0.2 s
    try:
        import torch  # noqa: F401, PLC0415  what this stage is for
    except Exception as error:  # noqa: BLE001  a broken or too large installation: any type
        text = f"compiled-dag: importing torch ahead of time failed: {error}"
        print(text, file=sys.stderr, flush=True)  # noqa: T201  nobody else would say why
        os._exit(1)
    try:
        _Zygote(socket.socket(fileno=control), board).run()
    except BaseException:  # noqa: BLE001  the driver falls back to the first stage
        traceback.print_exc()
    os._exit(1)


@dataclass(frozen=True, slots=True)
class _Child:
    actor_id: int
    pidfd: int


class _Zygote:
    """One stage's loop."""

    def __init__(self, control: socket.socket, board: Board) -> None:
        self._control = control
        self._board = board
        self._inbox = wire.Inbox(control)
        self._poll = select.poll()
        self._children: dict[int, _Child] = {}
        """By process id."""
        self._by_pidfd: dict[int, int] = {}

    def run(self) -> None:
        """Serve until the driver closes its end or dies; never returns."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        gc.freeze()  # so that no child's collector touches, and thereby copies, these pages
        gc.enable()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(DRIVER_FD, select.POLLIN)
        own = os.pidfd_open(os.getpid())
        self._send(Ready(pid=os.getpid(), fds=(own,)))
        os.close(own)
        messages: deque[Any] = deque()
        while True:
            for fd, _ in self._poll.poll():
                if fd == DRIVER_FD:
                    self._end()
                elif fd in self._by_pidfd:
                    self._bury(self._by_pidfd[fd])
            self._inbox.receive(messages)
            while messages:
                message = messages.popleft()
                if isinstance(message, AddStage):
                    self._add_stage(*message.fds)
                else:
                    self._spawn(message)
            if self._inbox.closed:
                self._end()

    def _send(self, message: Ready | Spawned | SpawnFailed | Exited) -> None:
        with contextlib.suppress(OSError):  # the driver is gone, which the loop sees next
            wire.send(self._control, message)

    # --- birth

    def _spawn(self, spawn: Spawn) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._send(SpawnFailed(actor_id=spawn.actor_id, reason=str(error)))
        else:
            if not pid:
                self._become(spawn)
            self._adopt(pid, spawn.actor_id)
            pidfd = self._children[pid].pidfd
            self._send(Spawned(actor_id=spawn.actor_id, pid=pid, fds=(pidfd,)))
        for fd in spawn.fds:
            os.close(fd)

    def _add_stage(self, control: int) -> None:
        """Fork the second stage, if torch is installed; else its socket closes."""
        # No process for it: the driver sees the socket close, and goes on with this stage.
        with contextlib.suppress(OSError):
            if importlib.util.find_spec("torch"):
                pid = os.fork()
                if not pid:
                    _run_torch_stage(control, self._board)
                self._adopt(pid, _TORCH_STAGE)
        os.close(control)

    def _become(self, spawn: Spawn) -> None:
        """Turn the forked child into the actor; never returns."""
        code = 1
        try:
            if spawn.fresh:
                _execute(spawn)
            code = worker.run(spawn, self._board, DRIVER_FD)
        except BaseException:  # noqa: BLE001  a bug of ours: into the actor's standard error
            traceback.print_exc()
        finally:
            os._exit(code)

    def _adopt(self, pid: int, actor_id: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._children[pid] = _Child(actor_id, pidfd)
        self._by_pidfd[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)

    # --- death

    def _bury(self, pid: int) -> None:
        child = self._children.pop(pid)
        self._poll.unregister(child.pidfd)
        del self._by_pidfd[child.pidfd]
        os.close(child.pidfd)
        if child.actor_id != _TORCH_STAGE:
            _kill_group(pid)
        _, status = os.waitpid(pid, 0)
        if child.actor_id != _TORCH_STAGE:
            self._send(
                Exited(actor_id=child.actor_id, pid=pid, status=os.waitstatus_to_exitcode(status))
            )

    def _end(self) -> None:
        """Kill and reap every actor; the second stage ends by itself, for the same reason."""
        for pid, child in self._children.items():
            if child.actor_id == _TORCH_STAGE:
                os.kill(pid, signal.SIGTERM)  # heeded as long as it is importing: it has no actors
            else:
                _kill_group(pid)
                os.kill(pid, signal.SIGKILL)  # in case it has not made its group yet
        for pid in self._children:
            os.waitpid(pid, 0)
        os._exit(0)


def _kill_group(pid: int) -> None:
    # No such group: the child died before it made its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


# --- a fresh interpreter --------------------------------------------------------------------------

_FRESH: Final = """
import sys
sys.path[:] = {path!r}
from runtime.zygote import run_fresh
run_fresh({memory}, {driver})
"""


def _execute(spawn: Spawn) -> None:
    """Replace this process by a new interpreter that runs the same actor; never returns."""
    worker.redirect_output(spawn.fds)
    memory = os.memfd_create("compiled-dag-spawn", 0)  # survives the exec
    os.write(memory, pickle.dumps(spawn))
    os.lseek(memory, 0, os.SEEK_SET)
    for fd in (*spawn.fds, BOARD_FD, DRIVER_FD):
        os.set_inheritable(fd, True)
    code = _FRESH.format(path=list(spawn.path), memory=memory, driver=DRIVER_FD)
    os.execve(sys.executable, [sys.executable, "-c", code], dict(spawn.environment))  # noqa: S606


def run_fresh(memory: int, driver: int) -> None:
    """Run an actor in a new interpreter; never returns."""
    with open(memory, "rb") as file:
        spawn: Spawn = pickle.load(file)
    code = 1
    try:
        code = worker.run(spawn, Board(BOARD_FD), driver)
    except BaseException:  # noqa: BLE001  a bug of ours: into the actor's standard error
        traceback.print_exc()
    finally:
        os._exit(code)
