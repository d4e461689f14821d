"""A session: the driver's processes, objects and GPUs; implements `compiled_dag.host.Host`."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pickle
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorAlreadyExistsError, ActorDiedError
from compiled_dag.host import ActorId
from compiled_dag.host import SystemCall as SystemFunction
from compiled_dag.shm.board import CAPACITY, CLAIMED, REVOKED, Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from runtime import obituary
from runtime.arguments import pack_arguments
from runtime.calls import next_number
from runtime.function import Function
from runtime.messages import System
from runtime.names import Names
from runtime.objects import ObjectRef, next_reference
from runtime.options import STREAM
from runtime.parcel import Parcel
from runtime.placement import Placement
from runtime.pool import NOTHING_REVOKED
from runtime.process import ActorProcess
from runtime.questions import Questions
from runtime.resources import Demand, Grant
from runtime.scheduler import Scheduler
from runtime.service import STOP_AT_ONCE
from runtime.stream import StreamEnd
from runtime.supervisor import Supervisor
from runtime.system_call import SystemCall
from runtime.task import Task
from runtime.waiting import get_all
from runtime.zygotes import Zygotes

if TYPE_CHECKING:
    from runtime.interrupts import Interrupts
    from runtime.objects import Lifeline
    from runtime.options import ActorOptions, TaskOptions
    from runtime.pool import PoolWorker
    from runtime.signatures import MethodSpec

_DESCRIPTORS: Final = 65536
_GRACE_S: Final = 2.0
"""For actors to end by themselves at shutdown."""

DeathWatcher = Callable[[ActorId, ActorDiedError], None]


_NOTHING: Final = contextlib.nullcontext()


class Session:
    """What `init` starts and `shutdown` ends."""

    process: Final = 0
    """The driver's line on the board."""

    def __init__(
        self,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        gpu_visibility: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        log_to_driver: bool = True,
        namespace: str | None = None,
    ) -> None:
        self.owner_pid = os.getpid()
        self.closed = False
        self.foreign = False
        """Whether this process is a forked child of the owner."""
        self.log_to_driver = log_to_driver
        self.placement = Placement(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or {},
            visibility=gpu_visibility,
            env_vars=env_vars or {},
            working_dir=working_dir,
        )
        self.scheduler = Scheduler(self)
        self.questions = Questions(self)
        self.names = Names(namespace)
        self._detached: list[Lifeline] = []
        """Of actors that outlive their handles."""
        self._functions: dict[int, Function] = {}
        self._pinned: dict[int, Any] = {}
        self._actors: dict[int, ActorProcess] = {}
        self._lines: set[int] = set()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._watchers: list[DeathWatcher] = []
        self._closers: list[Callable[[], object]] = []
        self._local = threading.local()
        _raise_descriptor_limit()
        self._segment = Board.create()
        self.board = Board(self._segment.fd)
        self._doorbell = Doorbell(self.board, self.process)
        self.supervisor = Supervisor()
        self.zygotes = Zygotes(self.supervisor, self, self._segment.fd)
        self.supervisor.start()
        try:
            self.zygotes.start()
        except BaseException:
            self._release()
            raise

    # --- the source of what `put` makes (always ready, so nobody ever attends to it)

    label = "the driver"

    @property
    def session(self) -> Session:
        """Itself."""
        return self

    where = "in the driver"

    def attend(self) -> None:
        """See `ActorProcess.attend`."""

    def expecting(self, _refs: Sequence[ObjectRef]) -> contextlib.AbstractContextManager[object]:
        """See `NestedSession.expecting`: here outcomes come by themselves."""
        return _NOTHING

    def bring(self, _refs: Sequence[ObjectRef]) -> None:
        """See `NestedSession.bring`."""

    def adopt(self, lifeline: Lifeline, _class_name: str) -> Lifeline:
        """See `NestedSession.adopt`."""
        return lifeline

    def pin(self, reference: Any) -> None:
        """Keep a reference that was pickled outside a value as long as the session lives."""
        self._pinned[reference.number] = reference

    def find_stray(self, number: int) -> Any:
        """Return a reference that was pinned.

        Raises:
            RuntimeError: There is none of that number.
        """
        if number not in self._pinned:
            raise RuntimeError(f"reference {number} does not belong to this session")
        return self._pinned[number]

    # --- what a graph needs: `compiled_dag.host.Host`

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy on the driver's doorbell."""
        waiter: Waiter | None = getattr(self._local, "waiter", None)
        if waiter is None:
            waiter = self._local.waiter = Waiter(self._doorbell)
        return waiter

    def line(self, actor_id: ActorId, deadline: float) -> int:
        """Return the board line of an actor once its process exists."""
        actor = self._actors[actor_id]
        if not self.wait_until(lambda: bool(actor.pid or actor.death), deadline):
            raise TimeoutError(
                f"actor {actor.label} has no process yet: {self.placement.waits_for(actor)}"
            )
        if actor.death is not None:
            raise copy.copy(actor.death)
        return actor.line

    def submit(
        self,
        actor_id: ActorId,
        function: SystemFunction,
        payload: bytes,
        fds: Sequence[int] = (),
    ) -> SystemCall:
        """Have an actor run `function` on its main thread."""
        if self.foreign:
            self.check_owner()
        # Once the session has ended the actor is dead, and the call fails with that: a graph that
        # is collected meanwhile goes on letting go of what it has.
        actor = self._actors[actor_id]
        call = SystemCall(self, f"{function.__name__} on actor {actor.label}")
        message = System(next_number(), pickle.dumps(function), payload, tuple(fds))
        actor.calls.submit(message, call)
        return call

    def watch(self, callback: DeathWatcher) -> Callable[[], None]:
        """Call `callback` from the supervising thread on every death; returns how to stop that."""
        self._watchers = [*self._watchers, callback]

        def stop() -> None:
            self._watchers = [known for known in self._watchers if known is not callback]

        return stop

    def at_shutdown(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` first thing in `shutdown`; returns how to stop that."""
        self._closers = [*self._closers, callback]

        def stop() -> None:
            self._closers = [known for known in self._closers if known is not callback]

        return stop

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the supervising thread; safe in finalizers, takes no lock."""
        if not self.closed and not self.foreign:
            self.supervisor.call_soon(callback)

    def death(self, actor_id: ActorId) -> ActorDiedError | None:
        """Return why an actor is dead, or None while it lives."""
        return self._actors[actor_id].death

    def kill(
        self, actor_id: ActorId, reason: str = obituary.KILLED, *, no_restart: bool = True
    ) -> None:
        """End an actor's process at once; without `no_restart` it may be made again."""
        self.check_owner()
        actor = self._actors[actor_id]
        if not no_restart and actor.restarts:
            actor.kill("")
            return
        actor.die(obituary.of_process(actor.label, actor.pid, None, reason, ""))
        actor.kill(reason)
        if self.placement.withdraw(actor):
            actor.bury()

    def check_owner(self) -> None:
        """Refuse use in a forked child, or after the session ended."""
        if self.foreign:
            raise RuntimeError(
                f"the session belongs to process {self.owner_pid}; this is its forked child "
                f"{os.getpid()}, which cannot use it. Submit work in the parent"
            )
        if self.closed:
            raise RuntimeError("the session has ended (runtime.shutdown): its actors are gone")

    # --- waiting

    def wait_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until `ready()`; returns False at the deadline."""
        return self.waiter.until(ready, self._check_foreign, deadline)

    def _check_foreign(self) -> None:
        if self.foreign:
            self.check_owner()

    def ring(self) -> None:
        """Wake the threads of this process that wait."""
        self.board.ring(self.process)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Return the values of `refs`; see `runtime.waiting`."""
        return get_all(self, refs, timeout)

    # --- objects

    def put(self, value: Any) -> ObjectRef:
        """Store `value`."""
        self.check_owner()
        ref = ObjectRef(f"put({type(value).__name__})", self)
        ref.complete(Parcel.of(value))
        return ref

    # --- actors

    def create(
        self,
        class_name: str,
        options: ActorOptions,
        arguments: tuple[Sequence[Any], Mapping[str, Any]],
        methods: Mapping[str, MethodSpec],
    ) -> Lifeline:
        """Start an actor; returns at once.

        Raises:
            TypeError: An argument of the constructor cannot be sent.
            OSError: The kernel refused a process.
        """
        self.check_owner()
        parcel, needed = pack_arguments(*arguments, hidden=1)
        return self.create_from(class_name, options, parcel, needed, methods)

    def create_from(
        self,
        class_name: str,
        options: ActorOptions,
        parcel: Parcel,
        needed: Sequence[ObjectRef],
        methods: Mapping[str, MethodSpec],
    ) -> Lifeline:
        """Start an actor whose constructor's arguments are encoded.

        Raises:
            ActorAlreadyExistsError: A living actor has the name.
        """
        actor = self._new_process(class_name, options)
        actor.methods = methods
        if options.name is not None:
            known = self.names.claim(options.name, options.namespace, actor)
            if known is not None:
                self._drop(actor)
                if options.get_if_exists:
                    return known
                raise ActorAlreadyExistsError(
                    f"an actor named {options.name!r} is there already: {known!r}. Get it with "
                    "runtime.get_actor(), choose another name, or pass get_if_exists=True"
                )
        lifeline = actor.lifeline()
        if options.lifetime == "detached":
            self._detached.append(lifeline)
        actor.submit("__init__", parcel, needed, (None,))
        self.placement.place(actor)
        return lifeline

    def _drop(self, actor: ActorProcess) -> None:
        """Forget an actor that was never asked for."""
        with self._lock:
            del self._actors[actor.actor_id]
            self._lines.discard(actor.line)

    def next_item(self, end: ObjectRef, position: int) -> ObjectRef | None:
        """Wait for an item of a stream; None at its end."""
        assert isinstance(end, StreamEnd)
        self.wait_until(lambda: end.has(position), None)
        return end.take(position)

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel what makes the value of `ref`.

        Raises:
            ValueError: `force` for a call of an actor.
        """
        source = ref.source
        if isinstance(source, Task):
            self.scheduler.cancel(source, force=force, recursive=recursive)
        elif isinstance(source, ActorProcess):
            if force:
                raise ValueError(
                    f"cancel({ref.what}, force=True): force would end the actor. Leave it out, or "
                    "use runtime.kill(actor)"
                )
            source.cancel(ref)

    def get_actor(self, name: str, namespace: str | None) -> tuple[Lifeline, Any]:
        """Return a named actor, and its methods.

        Raises:
            ValueError: There is none.
        """
        self.check_owner()
        process = self.names.find(name, namespace)
        return process.lifeline(), process.methods

    def _new_process(
        self, class_name: str, options: ActorOptions, worker: PoolWorker | None = None
    ) -> ActorProcess:
        with self._lock:
            actor_id = ActorId(next(self._ids))
            line = self._free_line(actor_id)
            actor = ActorProcess(self, actor_id, line, class_name, options, worker)
            self._actors[actor_id] = actor
        return actor

    def start_worker(self, worker: PoolWorker, options: ActorOptions, grant: Grant) -> None:
        """Start a process for tasks; `grant` stays the scheduler's."""
        worker.process = self._new_process("worker", options, worker)
        worker.process.start(Grant(Demand(), grant.gpu_ids))

    def kill_worker(self, worker: PoolWorker, reason: str) -> None:
        """End a worker's process at once."""
        worker.process.kill(reason)

    def resources(self, which: str) -> dict[str, float]:
        """Return the resources there are (``"totals"``), or those that are free."""
        self.check_owner()
        ledger = self.placement.ledger
        return ledger.totals() if which == "totals" else ledger.available()

    # --- tasks

    def next_export(self) -> int:
        """Return a number for a function."""
        return next_reference()

    def export_function(self, number: int, name: str, function: Any) -> None:
        """Keep a function for tasks.

        Raises:
            TypeError: It cannot be pickled.
        """
        self.export(number, name, Parcel.of(function))

    def export(self, number: int, name: str, parcel: Parcel) -> None:
        """Keep an encoded function."""
        self._functions[number] = Function(number, name, parcel)

    def function(self, number: int) -> Function:
        """Return a function that was exported."""
        return self._functions[number]

    def submit_task(
        self, function: int, options: TaskOptions, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[ObjectRef, ...]:
        """Queue a call of a function."""
        self.check_owner()
        parcel, needed = pack_arguments(args, kwargs)
        count = options.num_returns
        numbers = (None,) * (1 if count in (None, STREAM) else int(count))
        return self.scheduler.submit(self._functions[function], options, parcel, needed, numbers)

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
        words, board = self.board.words, self.board
        words[board.mailbox_index(line)] = words[board.word_index(line, CLAIMED)] = 0
        words[board.word_index(line, REVOKED)] = NOTHING_REVOKED

    def release(self, actor_id: int) -> None:
        """Let an actor end after its calls: its last handle is gone. Safe in finalizers."""
        if not self.closed and not self.foreign:
            actor = self._actors[actor_id]
            actor.released = True
            self.supervisor.call_soon(actor.end_after_calls)

    def actor(self, actor_id: int) -> ActorProcess:
        """Return an actor of this session, dead or alive."""
        return self._actors[actor_id]

    # --- what the zygotes report (on the supervising thread)

    def spawned(self, actor_id: int, pid: int, pidfd: int) -> None:
        """See `runtime.zygotes.Births`."""
        self._actors[actor_id].spawned(pid, pidfd)

    def spawn_failed(self, actor_id: int, reason: str) -> None:
        """See `runtime.zygotes.Births`."""
        self._actors[actor_id].spawn_failed(reason)

    def spawn_lost(self, actor_id: int) -> None:
        """See `runtime.zygotes.Births`."""
        self._actors[actor_id].spawn_lost()

    def exited(self, actor_id: int, status: int) -> None:
        """See `runtime.zygotes.Births`."""
        self._actors[actor_id].exited(status)

    def has_died(self, actor: ActorProcess, death: ActorDiedError) -> None:
        """Tell everybody who watches, and wake who waits."""
        if self.supervisor.is_current_thread:
            self._tell(actor.actor_id, death)
        else:
            self.supervisor.call_soon(lambda: self._tell(actor.actor_id, death))
        self.ring()

    def _tell(self, actor_id: ActorId, death: ActorDiedError) -> None:
        for callback in self._watchers:
            callback(actor_id, death)
        self.ring()

    def buried(self, actor: ActorProcess) -> None:
        """Give an ended actor's line and GPUs to others."""
        with self._lock:
            self._lines.discard(actor.line)
        grant, actor.grant = actor.grant, Grant(Demand())
        self.placement.give_back(grant)
        if not self.closed:
            self.placement.start_waiting()
            self.scheduler.kick()
        self.ring()

    # --- end

    def close(self, interrupts: Interrupts) -> None:
        """End every process and give everything back. Idempotent.

        Args:
            interrupts: Entered by the caller; Ctrl-C skips the grace, not the end.
        """
        if self.closed or self.foreign:
            return
        try:
            with interrupts.admit():
                for callback in self._closers:
                    callback()
                self._stop_actors()
        finally:
            self._release()

    def _stop_actors(self) -> None:
        self._detached.clear()
        actors = [actor for actor in self._actors.values() if not actor.gone]
        self.closed = True
        for actor in actors:
            actor.die(obituary.of_session(actor.label))
            actor.stop_at_once(STOP_AT_ONCE, obituary.SESSION_ENDED)
        self.scheduler.fail_all(obituary.of_tasks())
        deadline = time.monotonic() + _GRACE_S
        self.wait_until(lambda: all(actor.gone or not actor.pid for actor in actors), deadline)

    def _release(self) -> None:
        self.closed = True
        self.supervisor.stop()
        for actor in self._actors.values():
            if not actor.gone:
                actor.kill(obituary.SESSION_ENDED)
        self.zygotes.close()
        for actor in self._actors.values():
            actor.die(obituary.of_session(actor.label))
            actor.close_descriptors()
        self._segment.close()
        self.ring()

    def abandon(self) -> None:
        """Make this forked child's copy inert and close its descriptors."""
        self.foreign = True
        self.supervisor.close()
        self.zygotes.close_descriptors()
        for actor in self._actors.values():
            actor.close_descriptors()
        self._segment.close()


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us: every large value that is held has one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, _DESCRIPTORS)), hard))
