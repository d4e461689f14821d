"""One actor as the driver knows it, from the request for its process to its obituary."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import weakref
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorDiedError, RuntimeEnvSetupError
from runtime import obituary
from runtime.arguments import pack_arguments
from runtime.calls import Calls, next_number
from runtime.checks import STREAM
from runtime.connection import Connection
from runtime.fate import Fate
from runtime.interruption import SIGNAL, announce_skip, may_run, name_cancelled
from runtime.interrupts import whole
from runtime.messages import Call, Cancel, Item, Reply, SystemReply
from runtime.objects import Lifeline, ObjectRef
from runtime.peer import Peer
from runtime.pending import CREATION
from runtime.resources import Demand, Grant
from runtime.stream import StreamEnd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.host import ActorId
    from runtime.events import EventKind
    from runtime.link import Link
    from runtime.messages import Retry
    from runtime.options import ActorOptions
    from runtime.parcel import Parcel
    from runtime.pool import PoolWorker
    from runtime.session import Session
    from runtime.signatures import MethodSpec
    from runtime.stacks import StackPipe

_STATUS_S: Final = 1.0
"""How long the exit status may come after the death: the zygote sends it within a millisecond, if
it is not stopped, and the machine has nothing more urgent to do."""
_MOST_SPAWNS: Final = 3


class ActorProcess:
    """An actor; lives as long as anybody asks about it, much longer than its process."""

    def __init__(
        self,
        session: Session,
        actor_id: ActorId,
        line: int,
        class_name: str,
        options: ActorOptions,
        worker: PoolWorker | None = None,
    ) -> None:
        self.session = session
        self.actor_id = actor_id
        self.line = line
        self.class_name = class_name
        self.options = options
        self.label = f"{class_name}({actor_id})" if worker is None else f"process {actor_id}"
        self.calls: Calls | PoolWorker = worker or Calls(
            self._creation_failed,
            most_pending=options.max_pending_calls,
            attempts=options.max_task_retries,
            restarts=bool(options.max_restarts),
        )
        self.fate = Fate(options.max_restarts)
        self.peer = Peer(session, line, self.calls.post, worker)
        self._lifeline: weakref.ref[Lifeline] | None = None
        self.methods: Mapping[str, MethodSpec] = {}
        """What can be called, for handles made elsewhere."""
        self.pid = 0
        """0 until the process exists."""
        self.grant = Grant(Demand())
        """The resources it holds."""
        self.is_worker = worker is not None
        self.binds = itertools.count()
        """Numbers the calls of it that are drawn into graphs."""
        self.gone = False
        """Whether the process has ended, or will never be."""
        self._num_spawns = 0
        self._connection = Connection(session.supervisor, session.log_sink, self._prefix)

    @property
    def death(self) -> ActorDiedError | None:
        """Why it is dead, or None."""
        return self.calls.death

    @property
    def host(self) -> Session:
        """The session it belongs to."""
        return self.session.host

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it holds."""
        return self.options.num_gpus or 0

    @property
    def physical_gpus(self) -> tuple[str, ...]:
        """Names of the physical GPUs behind them; empty where they are fake or none."""
        return self.session.placement.physical_gpus(self.grant.gpu_ids)

    @property
    def can_be_found(self) -> bool:
        """Whether new handles may be made."""
        return self.death is None and not self.fate.released

    @property
    def stacks(self) -> StackPipe | None:
        """Where its Python stack comes; None before it is started."""
        return self._connection.stacks

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid else "starting"
        if self.death is not None:
            state = "dead"
        return f"<actor {self.label} {state}>"

    # --- from any thread

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        num_returns: int = 1,
        retry: Retry | None = None,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call; returns one reference per return value.

        Raises:
            TypeError: An argument cannot be sent.
        """
        parcel, needed = pack_arguments(args, kwargs)
        return self.submit(
            method, parcel, needed, _numbers(num_returns), retry, streams=num_returns == STREAM
        )

    @whole
    def submit(
        self,
        method: str,
        parcel: Parcel,
        needed: Sequence[ObjectRef],
        numbers: Sequence[int | None],
        retry: Retry | None = None,
        *,
        streams: bool = False,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call whose arguments are encoded; `numbers` are those of its references."""
        calls = self.calls
        assert calls.__class__ is Calls
        what = f"{self.class_name}.{method}"
        if "\0" in method:  # a concurrency group follows
            what = what.partition("\0")[0]
        number = next_number()
        if method == "__init__":
            number = CREATION
        kind = StreamEnd if streams else ObjectRef
        refs = tuple([kind(what, self, made, number) for made in numbers])
        count = STREAM if streams else len(refs)
        calls.add(Call(number, method.encode(), count, (parcel,)), needed, refs, retry)
        return refs

    def lifeline(self) -> Lifeline:
        """Return what all handles of this process share; the actor ends when it goes."""
        line = None if self._lifeline is None else self._lifeline()
        if line is None:
            line = Lifeline(self.actor_id, self, self.session.release)
            self._lifeline = weakref.ref(line)
        return line

    @property
    def where(self) -> str:
        """For messages."""
        if self.pid or self.death is not None:
            return f"on actor {self.label}"
        why = self.session.placement.waits_for(self)
        return f"on actor {self.label}, which has no process yet: {why}"

    def attend(self) -> Link | None:
        """Let the calling thread read the replies, until `Link.leave`; None if there are none."""
        link = self.calls.link
        if link is not None:
            link.attend()
        return link

    def end_after_calls(self) -> None:
        """Have the actor end once it has served what is queued: nobody holds it any more."""
        self.fate.give_reason(obituary.UNUSED)
        self.calls.end()

    def cancel(self, ref: ObjectRef) -> None:
        """Cancel the call that makes `ref`."""
        assert isinstance(self.calls, Calls)
        number = self.calls.cancel(ref)
        if number is not None:
            self.skip(number)
            if may_run(self.session.board, self.line, number):
                self.interrupt(number)

    def skip(self, number: int) -> None:
        """Have the process pass over a call that it has not begun."""
        self.calls.post(Cancel(number=number))
        announce_skip(self.session.board, self.line)

    def interrupt(self, number: int) -> None:
        """Interrupt the call or task with this number, which has begun, if it still runs."""
        name_cancelled(self.session.board, self.line, number)
        self._connection.signal(SIGNAL)

    # --- birth

    def start(self, grant: Grant) -> None:
        """Ask a zygote for the process."""
        self.grant = grant
        self._num_spawns += 1
        connection = Connection(self.session.supervisor, self.session.log_sink, self._prefix)
        self._connection = connection
        try:
            link, theirs = connection.open(
                self.session.board,
                self.line,
                receiver=self._receive,
                find=self.peer.find,
                lend=self.peer.lend,
                lend_memory=self.peer.lend_memory,
                memory=self.session.memory,
                flusher=self.calls.flush,
                breaker=self._broken,
            )
            self.calls.connect(link)
            needs_torch = self.session.placement.needs_torch(self.options)
            spawn = self.session.placement.spawn_of(self, theirs)
            self.session.zygotes.spawn(spawn, needs_torch=needs_torch)
        except RuntimeEnvSetupError as error:
            self.give_up(obituary.of_set_up(self.label, error))
        except OSError as error:
            self.spawn_failed(str(error))
        finally:
            connection.close_theirs()

    # --- what happens to it: on the supervising thread

    def spawned(self, pid: int, pidfd: int) -> None:
        """Start talking to the process."""
        self.pid = pid
        self.session.events.add("PROCESS_STARTED", self.label, pid=pid)
        self._connection.watch(pidfd, self._on_death)
        if self.death is None:
            self.calls.open()
        else:
            self.kill(self.fate.reason)
        self.session.ring()

    def spawn_failed(self, reason: str) -> None:
        """End an actor that never lived."""
        self.give_up(obituary.of_birth(self.label, reason))

    def give_up(self, death: ActorDiedError) -> None:
        """End an actor that has no process."""
        self.die(death)
        self.bury()

    def spawn_lost(self) -> None:
        """Ask again: the zygote died before it answered."""
        if self._num_spawns >= _MOST_SPAWNS or self.death is not None:
            self.spawn_failed(f"the process that starts actors died {self._num_spawns} times")
            return
        self._close()
        self.start(self.grant)

    def _receive(self, message: Any) -> None:
        kind = message.__class__
        if kind is Reply or kind is SystemReply:
            self.calls.answer(message)
        elif isinstance(message, Item):
            self.calls.yielded(message)
        else:
            self.peer.handle(message)
            self.calls.notice(message)

    def _creation_failed(self, failed: ObjectRef) -> None:
        try:
            failed.value()
        except BaseException as error:  # noqa: BLE001  whatever the constructor raised
            self.die(obituary.of_constructor(self.label, error))
        self.session.supervisor.call_soon(lambda: self.kill(""))

    def _broken(self, error: OSError) -> None:
        """Give up: what the actor sent cannot be received."""
        self.die(ActorDiedError(f"actor {self.label} was ended: its reply was lost ({error})"))
        self.kill("")

    def _prefix(self) -> bytes:
        """Return what is put before each line of its output."""
        name = self.calls.running_name() or self.options.name or self.class_name
        return f"({name} pid={self.pid}) ".encode()

    def _on_death(self, _events: int) -> None:
        """The process has ended: wait a moment for its exit status."""
        self.session.supervisor.forget(self._connection.pidfd)
        if self.session.zygotes.has_lost(self.actor_id):
            self._end()
        else:
            pid = self.pid
            self.session.supervisor.call_later(_STATUS_S, lambda: self._end_of(pid))

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
        tail = self._connection.finish()
        death = obituary.of_process(
            self.label, self.pid, self.fate.status, self.fate.reason, tail, self.options.name
        )
        again = self._may_restart()
        kind: EventKind = "ACTOR_RESTARTED" if again else "PROCESS_ENDED"
        self.session.events.add(kind, self.label, pid=self.pid, message=death)
        if again:
            self._restart(death)
        else:
            self.die(death)
            self.bury()

    @property
    def restarts(self) -> bool:
        """Whether it would be made again after a death now."""
        return self.death is None and self.fate.has_restarts and bool(self.pid)

    def _may_restart(self) -> bool:
        """Tell whether the actor is to be made again."""
        restarts = self.death is None and self.fate.restarts(self.calls.are_left)
        return restarts and not self.session.closed

    def _restart(self, death: ActorDiedError) -> None:
        """Begin again with another process; graphs the actor was in stay broken."""
        assert isinstance(self.calls, Calls)
        self.fate.use_restart()
        self._close()
        self.peer.clear()
        self.pid = 0
        self._num_spawns = 0
        self.calls.restart(obituary.of_restart(self.label, death))
        if self.fate.is_unused:
            self.calls.end()
        self.session.processes.has_died(self, death)
        self.session.processes.clear_line(self.line)
        self.start(self.grant)

    # --- end: from any thread

    def die(self, death: ActorDiedError) -> None:
        """Fail whatever is pending and what comes; the first reason stays."""
        if self.calls.fail(death):
            self.session.processes.has_died(self, death)

    def kill(self, reason: str) -> None:
        """Kill the process, and what it started."""
        self.fate.give_reason(reason)
        connection = self._connection
        if self.gone or connection.pidfd < 0:
            return
        # The zygote kills the group when it sees the death; without one it is done here, while
        # the process exists and its group's number is certain.
        if self.session.zygotes.has_lost(self.actor_id):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        connection.signal(signal.SIGKILL)

    def stop_at_once(self, word: int, reason: str) -> None:
        """Have the actor end without serving its queue."""
        self.fate.give_reason(reason)
        self.calls.stop_at_once(word)

    def bury(self) -> None:
        """Let go of everything the process had."""
        if self.gone:
            return
        self.gone = True
        self._close()
        self.peer.clear()
        self.session.buried(self)

    def _close(self) -> None:
        self.calls.connect(None)
        self._connection.close()

    def close_descriptors(self) -> None:
        """Close the descriptors only: in a forked child, or when the supervision has ended."""
        self._connection.close_descriptors()


def _numbers(num_returns: int) -> tuple[None, ...]:
    return (None,) * (1 if num_returns == STREAM else num_returns)
