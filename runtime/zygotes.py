"""The driver's side of the zygotes: starting them, choosing one, asking it for a process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from runtime import launch, wire
from runtime.launch import Launch
from runtime.messages import AddStage, Exited, Ready, Spawn, Spawned, SpawnFailed

if TYPE_CHECKING:
    from runtime.supervisor import Supervisor

_END_S: Final = 2.0


class Births(Protocol):
    """What the zygotes report about actors."""

    def spawned(self, actor_id: int, pid: int, pidfd: int) -> None:
        """Take note of a new process; owns `pidfd`."""

    def spawn_failed(self, actor_id: int, reason: str) -> None:
        """Give up on an actor whose process could not be made."""

    def spawn_lost(self, actor_id: int) -> None:
        """Ask for the process again: the zygote died before it answered."""

    def exited(self, actor_id: int, pid: int, status: int) -> None:
        """Take note of how a process ended."""


class Zygotes:
    """All zygotes of a session."""

    def __init__(self, supervisor: Supervisor, births: Births, board_fd: int) -> None:
        self._supervisor = supervisor
        self._births = births
        self._board_fd = board_fd
        self._lock = threading.Lock()
        self._clients: list[_Client] = []
        """All that may have actors, the lost ones not among them."""
        self._base: _Client | None = None
        self._torch: _Client | None = None
        self._asked = False
        """Whether the base was asked for the stage with torch."""
        self._pids: list[int] = []
        """Children of this process, to be reaped."""

    def adopt(self, launched: Launch) -> None:
        """Use a zygote that was just started; owns what it has."""
        self._pids.append(launched.pid)
        self._base = self._connect(launched.control)
        self._asked = False

    def _connect(self, sock: socket.socket) -> _Client:
        client = _Client(sock, self._supervisor, self._births, self._lost)
        self._clients.append(client)
        return client

    def want_torch(self) -> None:
        """Have a stage that has imported torch; returns at once. Any thread may use it.

        Idempotent: where torch cannot be imported, or the stage has died, nothing more is tried.
        """
        with self._lock:
            base = self._base
            if self._asked or base is None:
                return
            self._asked = True
            try:
                ours, theirs = socket.socketpair()
            except OSError:  # no descriptor is left: actors import torch for themselves
                return
            self._torch = self._connect(ours)
            with theirs:
                base.add_stage(theirs.fileno())

    def spawn(self, spawn: Spawn, *, needs_torch: bool) -> None:
        """Ask for an actor's process; the answer comes through `Births`.

        Raises:
            OSError: There is no zygote, and none could be started.
        """
        while not self._choose(needs_torch=needs_torch).spawn(spawn):
            pass  # lost since it was chosen

    def _choose(self, *, needs_torch: bool) -> _Client:
        with self._lock:
            if self._base is None or self._base.lost:
                self.adopt(Launch(self._board_fd))
            base = self._base
            assert base is not None
        if needs_torch:
            self.want_torch()
        torch = self._torch
        if torch is not None and not torch.lost and (torch.ready or needs_torch):
            return torch
        return base

    def pids(self) -> list[int]:
        """Return the process ids of the zygotes that have reported."""
        return [client.pid for client in self._clients if client.pid]

    def _lost(self, client: _Client) -> None:
        """Note that a zygote is gone (or that torch is not installed)."""
        unanswered = client.take_unanswered()
        with self._lock:
            if client is self._base:
                self._base = None
                # The next base gets a second stage of its own; this one serves its actors on.
                self._torch = None
            if client is self._torch:
                self._torch = None
            self._clients.remove(client)
        client.close()
        client.wait_for_end(time.monotonic() + _END_S)
        self._reap(block=False)
        for actor_id in unanswered:
            self._births.spawn_lost(actor_id)

    def has_lost(self, actor_id: int) -> bool:
        """Tell whether the zygote of an actor is gone, so that nobody will report its end."""
        return not any(actor_id in client.actors for client in self._clients)

    def close(self) -> None:
        """End all zygotes, and with them every actor that is left. Idempotent."""
        clients, self._clients = self._clients, []
        self._base = self._torch = None
        for client in clients:
            client.close()
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and was reaped
                os.kill(pid, signal.SIGTERM)  # heeded as long as it is importing
        deadline = time.monotonic() + _END_S
        for client in clients:
            client.wait_for_end(deadline)
        self._reap(block=True)

    def close_descriptors(self) -> None:
        """Close the descriptors only; in a forked child."""
        for client in self._clients:
            client.close_descriptors()

    def _reap(self, *, block: bool) -> None:
        deadline = time.monotonic() + _END_S
        for pid in list(self._pids):
            if block:
                launch.wait(pid, deadline)
            # Somebody else in the driver may have waited for all children.
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, 0 if block else os.WNOHANG) == (0, 0):
                    continue
            self._pids.remove(pid)


class _Client:
    """The connection to one zygote."""

    def __init__(
        self, sock: socket.socket, supervisor: Supervisor, births: Births, lost: Any
    ) -> None:
        self._sock = sock
        self._supervisor = supervisor
        self._births = births
        self._lost = lost
        self._inbox = wire.Inbox(sock)
        self._messages: deque[Any] = deque()
        self._sending = threading.Lock()
        self._unanswered: set[int] = set()
        self.actors: dict[int, int] = {}
        """Whose processes it is the parent of, and which they are."""
        self.ready = False
        self.lost = False
        self.pid = 0
        self._pidfd = -1
        supervisor.watch(sock.fileno(), self._on_event)

    def spawn(self, spawn: Spawn) -> bool:
        """Ask for a process; returns False if the zygote is known to be gone."""
        with self._sending:
            if self.lost:
                return False
            self._unanswered.add(spawn.actor_id)
            # Gone: the supervising thread sees it too and asks another one.
            with contextlib.suppress(OSError):
                wire.send(self._sock, spawn)
            return True

    def add_stage(self, control: int) -> None:
        """Ask for a stage that imports torch, with this socket."""
        # Gone: nobody has the stage's socket then, which is how that is seen.
        with self._sending, contextlib.suppress(OSError):
            wire.send(self._sock, AddStage(fds=(control,)))

    def take_unanswered(self) -> list[int]:
        """Return the actors whose process must be asked for elsewhere: the zygote is gone."""
        with self._sending:
            self.lost = True
            taken = sorted(self._unanswered)
            self._unanswered.clear()
            return taken

    def _on_event(self, _events: int) -> None:
        # No room for a process's descriptor: nothing is known of that process, or of the next. Its
        # zygote counts as lost, which ends what it started; who waits for a process asks again.
        with contextlib.suppress(OSError):
            self._inbox.receive(self._messages)
        while self._messages:
            self._handle(self._messages.popleft())
        if self._inbox.closed:
            self._lost(self)

    def _handle(self, message: Ready | Spawned | SpawnFailed | Exited) -> None:
        if isinstance(message, Ready):
            self.pid, (self._pidfd,) = message.pid, message.fds
            self.ready = True
        elif isinstance(message, Spawned):
            self._unanswered.discard(message.actor_id)
            self.actors[message.actor_id] = message.pid
            self._births.spawned(message.actor_id, message.pid, message.fds[0])
        elif isinstance(message, SpawnFailed):
            self._unanswered.discard(message.actor_id)
            self._births.spawn_failed(message.actor_id, message.reason)
        else:
            if self.actors.get(message.actor_id) == message.pid:
                del self.actors[message.actor_id]
            self._births.exited(message.actor_id, message.pid, message.status)

    def wait_for_end(self, deadline: float) -> None:
        """Wait until the process is gone, killing it at the deadline."""
        if self._pidfd >= 0:
            launch.wait_pidfd(self._pidfd, deadline)
            os.close(self._pidfd)
            self._pidfd = -1

    def close(self) -> None:
        """Close the socket, which ends a live zygote."""
        self._supervisor.forget(self._sock.fileno())
        self._inbox.close()
        self._sock.close()

    def close_descriptors(self) -> None:
        self._inbox.close()
        self._sock.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
