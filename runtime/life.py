"""The processes of one actor, one after the other: asked for, born, ended, made again."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorDiedError, RuntimeEnvSetupError
from runtime import obituary
from runtime.calls import Calls
from runtime.connection import Connection
from runtime.fate import Fate
from runtime.messages import Item, Reply, SystemReply
from runtime.resources import Demand, Grant

if TYPE_CHECKING:
    from runtime.events import EventKind
    from runtime.process import ActorProcess
    from runtime.stacks import StackPipe

_STATUS_S: Final = 1.0
"""How long the exit status may come after the death: the zygote sends it within a millisecond, if
it is not stopped, and the machine has nothing more urgent to do."""
_MOST_SPAWNS: Final = 3


class Life:
    """What is known of an actor's process, and what happens to it: on the supervising thread.

    Only `start`, `kill` and `signal` are for any thread.
    """

    def __init__(self, actor: ActorProcess) -> None:
        """Begin without a process."""
        self._actor = actor
        self._session = actor.session
        self.fate = Fate(actor.options.max_restarts)
        self.pid = 0
        """0 until the process exists."""
        self.grant = Grant(Demand())
        """The resources it holds."""
        self.gone = False
        """Whether the process has ended, or will never be."""
        self._num_spawns = 0
        self._connection = self._new_connection()

    @property
    def stacks(self) -> StackPipe | None:
        """Where its Python stack comes; None before it is started."""
        return self._connection.stacks

    @property
    def restarts(self) -> bool:
        """Whether it would be made again after a death now."""
        return self._actor.death is None and self.fate.has_restarts and bool(self.pid)

    def _new_connection(self) -> Connection:
        return Connection(self._session.supervisor, self._session.log_sink, self._prefix)

    def _prefix(self) -> bytes:
        """Return what is put before each line of its output."""
        actor = self._actor
        name = actor.calls.running_name() or actor.options.name or actor.class_name
        return f"({name} pid={self.pid}) ".encode()

    # --- birth

    def start(self, grant: Grant) -> None:
        """Ask a zygote for the process."""
        actor, placement = self._actor, self._session.placement
        self.grant = grant
        self._num_spawns += 1
        connection = self._connection = self._new_connection()
        try:
            link, theirs = connection.open(
                self._session.board,
                actor.line,
                receiver=self._receive,
                find=actor.peer.find,
                lend=actor.peer.lend,
                lend_memory=actor.peer.lend_memory,
                memory=self._session.memory,
                flusher=actor.calls.flush,
                breaker=self._broken,
            )
            actor.calls.connect(link)
            needs_torch = placement.needs_torch(actor.options)
            spawn = placement.spawn_of(actor, theirs)
            self._session.zygotes.spawn(spawn, needs_torch=needs_torch)
        except RuntimeEnvSetupError as error:
            self._give_up(obituary.of_set_up(actor.label, error))
        except OSError as error:
            self.spawn_failed(str(error))
        finally:
            connection.close_theirs()

    def spawned(self, pid: int, pidfd: int) -> None:
        """Start talking to the process."""
        actor = self._actor
        self.pid = pid
        self._session.events.add("PROCESS_STARTED", actor.label, pid=pid)
        self._connection.watch(pidfd, self._on_death)
        if actor.death is None:
            actor.calls.open()
        else:
            self.kill(self.fate.reason)
        self._session.ring()

    def spawn_failed(self, reason: str) -> None:
        """End an actor that never lived."""
        self._give_up(obituary.of_birth(self._actor.label, reason))

    def spawn_lost(self) -> None:
        """Ask again: the zygote died before it answered."""
        if self._num_spawns >= _MOST_SPAWNS or self._actor.death is not None:
            self.spawn_failed(f"the process that starts actors died {self._num_spawns} times")
            return
        self._close()
        self.start(self.grant)

    def _give_up(self, death: ActorDiedError) -> None:
        self._actor.die(death)
        self.bury()

    # --- what it says

    def _receive(self, message: Any) -> None:
        actor, kind = self._actor, message.__class__
        if kind is Reply or kind is SystemReply:
            actor.calls.answer(message)
        elif isinstance(message, Item):
            actor.calls.yielded(message)
        else:
            actor.peer.handle(message)
            actor.calls.notice(message)

    def _broken(self, error: OSError) -> None:
        """Give up: what the actor sent cannot be received."""
        label = self._actor.label
        self._actor.die(ActorDiedError(f"actor {label} was ended: its reply was lost ({error})"))
        self.kill("")

    # --- end

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        self._connection.signal(number)

    def kill(self, reason: str) -> None:
        """Kill the process, and what it started."""
        self.fate.give_reason(reason)
        connection = self._connection
        if self.gone or connection.pidfd < 0:
            return
        # The zygote kills the group when it sees the death; without one it is done here, while
        # the process exists and its group's number is certain.
        if self._session.zygotes.has_lost(self._actor.actor_id):
            with contextlib.suppress(ProcessLookupError):  # it has not made its group yet
                os.killpg(self.pid, signal.SIGKILL)
        connection.signal(signal.SIGKILL)

    def _on_death(self, _events: int) -> None:
        """The process has ended: wait a moment for its exit status."""
        supervisor = self._session.supervisor
        supervisor.forget(self._connection.pidfd)
        if self._session.zygotes.has_lost(self._actor.actor_id):
            self._end()
        else:
            pid = self.pid
            supervisor.call_later(_STATUS_S, lambda: self._end_of(pid))

    def exited(self, pid: int, status: int) -> None:
        """Take note of the exit status."""
        if pid == self.pid:
            self.fate.status = status
            self._end()

    def _end_of(self, pid: int) -> None:
        if pid == self.pid:  # not that of another process since
            self._end()

    def _end(self) -> None:
        if self.gone:
            return
        actor, fate = self._actor, self.fate
        tail = self._connection.finish()
        death = obituary.of_process(
            actor.label, self.pid, fate.status, fate.reason, tail, actor.options.name
        )
        again = self._may_restart()
        kind: EventKind = "ACTOR_RESTARTED" if again else "PROCESS_ENDED"
        self._session.events.add(kind, actor.label, pid=self.pid, message=death)
        if again:
            self._restart(death)
        else:
            actor.die(death)
            self.bury()

    def _may_restart(self) -> bool:
        """Tell whether the actor is to be made again."""
        actor = self._actor
        restarts = actor.death is None and self.fate.restarts(actor.calls.are_left)
        return restarts and not self._session.closed

    def _restart(self, death: ActorDiedError) -> None:
        """Begin again with another process; graphs the actor was in stay broken."""
        actor, processes = self._actor, self._session.processes
        calls = actor.calls
        assert isinstance(calls, Calls)
        self.fate.use_restart()
        self._close()
        actor.peer.clear()
        self.pid = 0
        self._num_spawns = 0
        calls.restart(obituary.of_restart(actor.label, death))
        if self.fate.is_unused:
            calls.end()
        processes.has_died(actor, death)
        processes.clear_line(actor.line)
        self.start(self.grant)

    def bury(self) -> None:
        """Let go of everything the process had."""
        if self.gone:
            return
        self.gone = True
        self._close()
        self._actor.peer.clear()
        self._session.buried(self._actor)

    def _close(self) -> None:
        self._actor.calls.connect(None)
        self._connection.close()

    def close_descriptors(self) -> None:
        """Close the descriptors only: in a forked child, or when the supervision has ended."""
        self._connection.close_descriptors()
