"""All processes of a session, dead or alive: their numbers, lines on the board, and ends."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from compiled_dag.errors import ActorDiedError
from compiled_dag.host import ActorId
from compiled_dag.shm.board import AWAITED, CAPACITY, CLAIMED, CONCURRENT, REVOKED, SENT
from runtime.pool import NOTHING_REVOKED
from runtime.process import ActorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.options import ActorOptions
    from runtime.pool import PoolWorker
    from runtime.session import Session

MOST_BURIED: Final = 1000
"""Actors that have ended and are still listed; each takes 6 KB."""

DeathWatcher = Callable[[ActorId, ActorDiedError], None]


class Processes:
    """The table of actors and workers; what the zygotes report goes through it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._table: dict[int, ActorProcess] = {}
        """The living, and the last of the dead."""
        self._known: weakref.WeakValueDictionary[int, ActorProcess] = weakref.WeakValueDictionary()
        """All that somebody has a handle or a graph of, too."""
        self._buried: deque[int] = deque()
        self._lines: set[int] = set()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._watchers: dict[int, DeathWatcher] = {}
        self._watcher_keys = itertools.count()
        self._births: dict[int, list[Callable[[], object]]] = {}
        """What is to be called when a process exists, or never will."""

    def __iter__(self) -> Iterator[ActorProcess]:
        return iter(list(self._table.values()))

    def __getitem__(self, actor_id: int) -> ActorProcess:
        found = self._table.get(actor_id)
        return self._known[actor_id] if found is None else found

    def new(
        self, class_name: str, options: ActorOptions, worker: PoolWorker | None = None
    ) -> ActorProcess:
        """Add an actor, or a worker, that has no process yet.

        Raises:
            RuntimeError: Too many are alive.
        """
        with self._lock:
            actor_id = ActorId(next(self._ids))
            line = self._free_line(actor_id)
            actor = ActorProcess(self._session, actor_id, line, class_name, options, worker)
            self._table[actor_id] = self._known[actor_id] = actor
        return actor

    def drop(self, actor: ActorProcess) -> None:
        """Forget an actor that never had a process and never will."""
        with self._lock:
            del self._table[actor.actor_id]
            self._lines.discard(actor.line)

    def free(self, actor: ActorProcess) -> None:
        """Let others have the line of a process that has ended.

        Workers are forgotten, and of the actors that have ended all but the last thousand.
        """
        with self._lock:
            self._lines.discard(actor.line)
            if actor.is_worker:
                self._table.pop(actor.actor_id, None)
                return
            self._buried.append(actor.actor_id)
            if len(self._buried) > MOST_BURIED:
                self._table.pop(self._buried.popleft(), None)

    def _free_line(self, actor_id: int) -> int:
        """Take the next line of the board that no live actor has."""
        if len(self._lines) >= CAPACITY - 1:
            raise RuntimeError(f"{CAPACITY - 1} actors are alive: a session has room for no more")
        line = (actor_id - 1) % (CAPACITY - 1) + 1
        while line in self._lines:
            line = line % (CAPACITY - 1) + 1
        self._lines.add(line)
        self.clear_line(line)
        return line

    def clear_line(self, line: int) -> None:
        """Make a line of the board that of a process that has just been born."""
        board = self._session.board
        words = board.words
        words[board.mailbox_index(line)] = 0
        for word in (CLAIMED, AWAITED, CONCURRENT, SENT):
            words[board.word_index(line, word)] = 0
        words[board.word_index(line, REVOKED)] = NOTHING_REVOKED

    # --- births and deaths

    def when_born(self, actor: ActorProcess, callback: Callable[[], object]) -> None:
        """Call `callback` once the process exists, or never will; now, if that is known."""
        with self._lock:
            known = actor.pid or actor.death is not None
            if not known:
                self._births.setdefault(actor.actor_id, []).append(callback)
        if known:
            callback()

    def _is_born(self, actor_id: int) -> None:
        with self._lock:
            callbacks = self._births.pop(actor_id, ())
        for callback in callbacks:
            callback()

    def watch(self, callback: DeathWatcher) -> Callable[[], None]:
        """Call `callback` from the supervising thread on every death; returns how to stop that."""
        key = next(self._watcher_keys)  # from any thread: a dict's single steps need no lock
        self._watchers[key] = callback

        def stop() -> None:
            self._watchers.pop(key, None)

        return stop

    def has_died(self, actor: ActorProcess, death: ActorDiedError) -> None:
        """Tell everybody who watches, and wake who waits."""
        supervisor = self._session.supervisor
        if supervisor.is_current_thread:
            self._tell(actor.actor_id, death)
        else:
            supervisor.call_soon(lambda: self._tell(actor.actor_id, death))
        self._session.ring()

    def _tell(self, actor_id: ActorId, death: ActorDiedError) -> None:
        self._is_born(actor_id)
        for callback in list(self._watchers.values()):
            callback(actor_id, death)
        self._session.ring()

    # --- what the zygotes report (on the supervising thread)

    def spawned(self, actor_id: int, pid: int, pidfd: int) -> None:
        """See `runtime.zygotes.Births`."""
        self._table[actor_id].life.spawned(pid, pidfd)
        self._is_born(actor_id)

    def spawn_failed(self, actor_id: int, reason: str) -> None:
        """See `runtime.zygotes.Births`."""
        self._table[actor_id].life.spawn_failed(reason)

    def spawn_lost(self, actor_id: int) -> None:
        """See `runtime.zygotes.Births`."""
        self._table[actor_id].life.spawn_lost()

    def exited(self, actor_id: int, pid: int, status: int) -> None:
        """See `runtime.zygotes.Births`."""
        actor = self._table.get(actor_id)
        if actor is not None:
            actor.life.exited(pid, status)
