"""A session: the driver's processes, objects and GPUs; implements `compiled_dag.host.Host`."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from runtime import activity, obituary, torch_use
from runtime.claims import Claims
from runtime.dedup import Deduplicator
from runtime.events import EventLog
from runtime.graph_host import GraphHost
from runtime.logs import write_to_stderr
from runtime.mailbox import STOP_AT_ONCE
from runtime.mapped import MAPPINGS
from runtime.names import Names
from runtime.objects import ObjectRef
from runtime.parcel import Parcel
from runtime.placement import Placement
from runtime.processes import Processes
from runtime.questions import Questions
from runtime.reclaim import Reclaim
from runtime.requests import Requests
from runtime.resources import Demand, Grant
from runtime.scheduler import Scheduler
from runtime.stacks import Stacks
from runtime.store import Store
from runtime.supervisor import Supervisor
from runtime.traces import Traces
from runtime.waiting import get_all
from runtime.waits import Waits
from runtime.warm import WarmMemory
from runtime.zygotes import Zygotes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collective.groups import Groups
    from compiled_dag.host import Activity, ActorId
    from compiled_dag.interrupts import Interrupts
    from compiled_dag.shm.segment import Segment
    from runtime.group_home import DriverHome
    from runtime.launch import Launch
    from runtime.objects import Lifeline
    from runtime.options import ActorOptions
    from runtime.pool import PoolWorker
    from runtime.process import ActorProcess

_DESCRIPTORS: Final = 65536
_GRACE_S: Final = 2.0
"""At shutdown, for graphs and then actors to end by themselves."""
_HURRIED_S: Final = 0.2
"""The same after Ctrl-C."""

_NOTHING: Final = contextlib.nullcontext()


class Session(Requests, GraphHost):
    """What `init` starts and `shutdown` ends."""

    def __init__(
        self,
        segment: Segment,
        launched: Launch,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        gpu_visibility: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        log_to_driver: bool = True,
        namespace: str | None = None,
        object_store_memory: int | None = None,
    ) -> None:
        """Begin a session; owns the board's memory and the zygote that was started with it."""
        super().__init__()
        self.owner_pid = os.getpid()
        self.closed = False
        self.foreign = False
        """Whether this process is a forked child of the owner."""
        self.placement = Placement(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or {},
            visibility=gpu_visibility,
            env_vars=env_vars or {},
            working_dir=working_dir,
            on_wait=self.begin_reclaim,
        )
        self.scheduler = Scheduler(self)
        self.questions = Questions(self)
        self.names = Names(namespace)
        self.claims = Claims(self)
        self.events = EventLog()
        self.traces = Traces()
        self.stacks = Stacks()
        self.waits = Waits(self)
        self._groups: Groups | None = None
        self._groups_lock = threading.Lock()
        self.detached: list[Lifeline] = []
        """Of actors that outlive their handles."""
        self.processes = Processes(self)
        self._local = threading.local()
        self._open(segment, object_store_memory, log_to_driver=log_to_driver)
        self._begin(launched)

    def _open(
        self, segment: Segment, object_store_memory: int | None, *, log_to_driver: bool
    ) -> None:
        """Open what holds descriptors, memory and a thread that is not started."""
        _raise_descriptor_limit()
        self._segment = segment
        self.board = Board(self._segment.fd)
        self._doorbell = Doorbell(self.board, self.process)
        self.supervisor = Supervisor()
        self._reclaim = Reclaim(self.supervisor, self._is_short_of_resources)
        self.memory = WarmMemory(self.supervisor.call_soon, self.supervisor.call_later)
        self.store = Store(object_store_memory)
        dedup = Deduplicator(write_to_stderr, self.supervisor.call_later)
        self.log_sink = dedup if log_to_driver else None
        """Takes what processes print."""
        self.zygotes = Zygotes(self.supervisor, self.processes, self._segment.fd)

    def _begin(self, launched: Launch) -> None:
        """Supervise from now on, and start processes when asked to."""
        self.supervisor.start()
        self.zygotes.adopt(launched)
        torch_use.watch(self.zygotes.want_torch)
        self.events.add("SESSION_STARTED", "the session", pid=self.owner_pid)

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

    def tend(self) -> None:
        """Have the supervising thread read whatever no other thread reads."""
        self.supervisor.settle()

    def note_wait(self, _ref: ObjectRef | None) -> None:
        """See `NestedSession.note_wait`: here it shows in the references' sources."""

    def adopt(self, lifeline: Lifeline, _class_name: str) -> Lifeline:
        """See `NestedSession.adopt`."""
        return lifeline

    # --- what the others do

    def activities(
        self, actor_ids: Sequence[ActorId], deadline: float, *, stacks: bool
    ) -> Mapping[ActorId, Activity]:
        """Return what actors are doing, without their help."""
        return activity.activities(self, actor_ids, deadline, stacks=stacks)

    def progress_of(self, ref: ObjectRef) -> str:
        """Return what is known of a reference that is not ready, in words."""
        return activity.progress_of(ref)

    @property
    def host(self) -> Session:
        """Itself."""
        return self

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy on the driver's doorbell."""
        waiter: Waiter | None = getattr(self._local, "waiter", None)
        if waiter is None:
            waiter = self._local.waiter = Waiter(self._doorbell)
        return waiter

    def check_owner(self) -> None:
        """Refuse use in a forked child, or after the session ended."""
        if self.foreign:
            raise RuntimeError(
                f"the session belongs to process {self.owner_pid}; this is its forked child "
                f"{os.getpid()}, which cannot use it. Submit work in the parent"
            )
        if self.closed:
            raise RuntimeError(
                "the session has ended (runtime.shutdown): its actors are gone. Make them anew"
            )

    # --- eager collectives

    @property
    def groups(self) -> Groups:
        """The session's eager collective groups."""
        from collective.groups import Groups  # noqa: PLC0415  for scripts that have some

        with self._groups_lock:
            if self._groups is None:
                self._groups = Groups(self, self.actor)
            return self._groups

    @property
    def group_home(self) -> DriverHome:
        """The way to them, for `collective.home`."""
        from runtime.group_home import DriverHome  # noqa: PLC0415  as above

        return DriverHome(self)

    # --- waiting

    def wait_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until `ready()`; returns False at the deadline."""
        self.supervisor.settle()
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

    def put(self, value: Any) -> ObjectRef:
        """Store `value`."""
        self.check_owner()
        ref = ObjectRef(f"put({type(value).__name__})", self)
        ref.complete(Parcel.of(value))
        if ref.error is not None:
            raise ref.error
        return ref

    def code_of(self, number: int) -> ObjectRef:
        """Return a reference to the plain function that is kept under a number."""
        kept = self.store.function(number)
        ref = ObjectRef(f"the code of {kept.name}", self)
        ref.complete(kept.parcel)
        return ref

    # --- actors and workers

    def start_worker(self, worker: PoolWorker, options: ActorOptions, grant: Grant) -> None:
        """Start a process for tasks; `grant` stays the scheduler's."""
        worker.process = self.processes.new("worker", options, worker)
        worker.process.life.start(Grant(Demand(), grant.gpu_ids))

    def kill_worker(self, worker: PoolWorker, reason: str) -> None:
        """End a worker's process at once."""
        worker.process.life.kill(reason)

    def release(self, actor_id: int) -> None:
        """Let an actor end after its calls: its last handle is gone. Safe in finalizers."""
        if not self.closed and not self.foreign:
            actor = self.processes[actor_id]
            actor.life.fate.released = True
            self.supervisor.call_soon(actor.end_after_calls)

    def actor(self, actor_id: int) -> ActorProcess:
        """Return an actor of this session, dead or alive."""
        return self.processes[actor_id]

    def buried(self, actor: ActorProcess) -> None:
        """Give an ended actor's line and GPUs to others."""
        self.processes.free(actor)
        life = actor.life
        grant, life.grant = life.grant, Grant(Demand())
        self.placement.give_back(grant)
        if not self.closed:
            self.placement.start_waiting()
            self.scheduler.kick()
        self.ring()

    def begin_reclaim(self) -> None:
        """Look for resources in garbage: something waits for them."""
        self._reclaim.begin()

    def _is_short_of_resources(self) -> bool:
        return not self.closed and (self.placement.is_awaited or self.scheduler.is_starved)

    def note_code(self, code: Parcel) -> None:
        """Take note of a class or function that processes are to run."""
        if not self.placement.uses_torch and torch_use.is_in(code):
            self.placement.uses_torch = True
            self.zygotes.want_torch()

    # --- end

    def close(self, interrupts: Interrupts, *, hurry: bool = False) -> None:
        """End every process and give everything back. Idempotent.

        Args:
            interrupts: Entered by the caller; Ctrl-C skips the grace, not the end.
            hurry: Give no more grace than those need who do nothing.
        """
        if self.closed or self.foreign:
            return
        grace_s = _HURRIED_S if hurry else _GRACE_S
        deadline = time.monotonic() + grace_s
        try:
            with interrupts.admit():
                for callback in list(self.closers.values()):
                    callback(deadline - grace_s / 2)
                self._stop_actors(deadline)
        finally:
            self._release()

    def _stop_actors(self, deadline: float) -> None:
        self.detached.clear()
        self.store.clear()
        actors = [actor for actor in self.processes if not actor.gone]
        self.closed = True
        self.scheduler.close(obituary.of_tasks())
        for actor in actors:
            actor.die(obituary.of_session(actor.label))
            actor.stop_at_once(STOP_AT_ONCE, obituary.SESSION_ENDED)
        self.wait_until(lambda: all(actor.gone or not actor.pid for actor in actors), deadline)

    def _release(self) -> None:
        self.closed = True
        torch_use.watch(None)
        self.supervisor.stop()
        if self.log_sink is not None:
            self.log_sink.flush()
        for actor in self.processes:
            if not actor.gone:
                actor.life.kill(obituary.SESSION_ENDED)
        self.zygotes.close()
        for actor in self.processes:
            actor.die(obituary.of_session(actor.label))
            actor.life.close_descriptors()
        self.claims.close()
        self.memory.close()
        MAPPINGS.clear()
        self._segment.close()
        self.ring()

    def abandon(self) -> None:
        """Make this forked child's copy inert and close its descriptors."""
        self.foreign = True
        torch_use.watch(None)
        self.supervisor.close()
        self.zygotes.close_descriptors()
        for actor in self.processes:
            actor.life.close_descriptors()
        self.claims.close()
        self.memory.abandon()
        self._segment.close()


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us: every large value that is held has one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, _DESCRIPTORS)), hard))
