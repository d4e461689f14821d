"""A session: the driver's processes, objects and GPUs; implements `compiled_dag.host.Host`."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorDiedError
from compiled_dag.host import ActorId
from compiled_dag.host import SystemCall as SystemFunction
from compiled_dag.shm.board import CAPACITY, Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from runtime import obituary
from runtime.calls import next_number
from runtime.messages import System
from runtime.objects import ObjectRef
from runtime.parcel import Parcel
from runtime.placement import Placement
from runtime.process import ActorProcess
from runtime.service import STOP_AT_ONCE
from runtime.supervisor import Supervisor
from runtime.system_call import SystemCall
from runtime.waiting import get_all
from runtime.zygotes import Zygotes

if TYPE_CHECKING:
    from runtime.interrupts import Interrupts
    from runtime.options import ActorOptions

_DESCRIPTORS: Final = 65536
_GRACE_S: Final = 2.0
"""For actors to end by themselves at shutdown."""

DeathWatcher = Callable[[ActorId, ActorDiedError], None]


class Session:
    """What `init` starts and `shutdown` ends."""

    process: Final = 0
    """The driver's line on the board."""

    def __init__(
        self,
        *,
        num_gpus: float | None = None,
        gpu_visibility: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        log_to_driver: bool = True,
    ) -> None:
        self.owner_pid = os.getpid()
        self.closed = False
        self.foreign = False
        """Whether this process is a forked child of the owner."""
        self.log_to_driver = log_to_driver
        self.placement = Placement(
            num_gpus=num_gpus, visibility=gpu_visibility, env_vars=env_vars or {}
        )
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

    def attend(self) -> None:
        """See `ActorProcess.attend`."""

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
                f"actor {actor.label} has no process yet (num_gpus={actor.options.num_gpus}, "
                f"the session has {self.placement.num_gpus})"
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

    def kill(self, actor_id: ActorId, reason: str = obituary.KILLED) -> None:
        """End an actor's process at once."""
        self.check_owner()
        actor = self._actors[actor_id]
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
    ) -> ActorProcess:
        """Start an actor; returns at once.

        Raises:
            TypeError: An argument of the constructor cannot be sent.
            OSError: The kernel refused a process.
        """
        self.check_owner()
        with self._lock:
            actor_id = ActorId(next(self._ids))
            line = self._free_line(actor_id)
            actor = ActorProcess(self, actor_id, line, class_name, options)
            self._actors[actor_id] = actor
        actor.call("__init__", *arguments)
        self.placement.place(actor)
        return actor

    def _free_line(self, actor_id: int) -> int:
        """Take the next line of the board that no live actor has."""
        if len(self._lines) >= CAPACITY - 1:
            raise RuntimeError(f"{CAPACITY - 1} actors are alive: a session has room for no more")
        line = (actor_id - 1) % (CAPACITY - 1) + 1
        while line in self._lines:
            line = line % (CAPACITY - 1) + 1
        self._lines.add(line)
        self.board.words[self.board.mailbox_index(line)] = 0
        return line

    def release(self, actor_id: int) -> None:
        """Let an actor end after its calls: its last handle is gone. Safe in finalizers."""
        if not self.closed and not self.foreign:
            self.supervisor.call_soon(self._actors[actor_id].end_after_calls)

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
        self.placement.give_back(actor)
        if not self.closed:
            self.placement.start_waiting()
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
        actors = [actor for actor in self._actors.values() if not actor.gone]
        self.closed = True
        for actor in actors:
            actor.die(obituary.of_session(actor.label))
            actor.stop_at_once(STOP_AT_ONCE, obituary.SESSION_ENDED)
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
