"""A session: the driver's processes, objects and GPUs; implements `compiled_dag.host.Host`."""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorDiedError, GetTimeoutError
from compiled_dag.host import ActorId
from compiled_dag.host import SystemCall as SystemFunction
from compiled_dag.shm.board import CAPACITY, Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from runtime import gpus, obituary
from runtime.messages import System
from runtime.objects import ObjectRef
from runtime.parcel import Parcel
from runtime.process import ActorProcess
from runtime.service import STOP_AT_ONCE
from runtime.supervisor import Supervisor
from runtime.system_call import SystemCall
from runtime.zygotes import Zygotes, base_environment

if TYPE_CHECKING:
    from runtime.options import ActorOptions

_GRACE_S: Final = 2.0
"""For actors to end by themselves at shutdown."""
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

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
        self._visibility = gpus.parse_visibility(gpu_visibility)
        self._env_vars = dict(env_vars or {})
        self._physical = gpus.driver_devices()
        self.gpus = gpus.GpuPool(len(self._physical) if num_gpus is None else num_gpus)
        self._actors: dict[int, ActorProcess] = {}
        self._unplaced: deque[ActorProcess] = deque()
        self._lines: set[int] = set()
        self._ids = itertools.count(1)
        self._calls = itertools.count(1)
        self._lock = threading.Lock()
        self._watchers: list[DeathWatcher] = []
        self._closers: list[Callable[[], None]] = []
        self._local = threading.local()
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

    @property
    def session(self) -> Session:
        """Itself: a session is the source of what `put` makes."""
        return self

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
            raise TimeoutError(f"actor {actor.label} has no process yet{self._shortage(actor)}")
        if actor.death is not None:
            raise actor.death
        return actor.line

    def submit(
        self,
        actor_id: ActorId,
        function: SystemFunction,
        payload: bytes,
        fds: Sequence[int] = (),
    ) -> SystemCall:
        """Have an actor run `function` on its main thread."""
        self.check_owner()
        actor = self._actors[actor_id]
        call = SystemCall(self, f"{function.__name__} on actor {actor.label}")
        number = -next(self._calls) & 0xFFFFFFFFFFFFFFFF  # apart from the numbers of calls
        actor.submit(System(number, pickle.dumps(function), payload, tuple(fds)), call)
        return call

    def watch(self, callback: DeathWatcher) -> Callable[[], None]:
        """Call `callback` from the supervising thread on every death; returns how to stop that."""
        self._watchers = [*self._watchers, callback]

        def stop() -> None:
            self._watchers = [known for known in self._watchers if known is not callback]

        return stop

    def at_shutdown(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` first thing in `shutdown`; returns how to stop that."""
        self._closers = [*self._closers, callback]

        def stop() -> None:
            self._closers = [known for known in self._closers if known is not callback]

        return stop

    def death(self, actor_id: ActorId) -> ActorDiedError | None:
        """Return why an actor is dead, or None while it lives."""
        return self._actors[actor_id].death

    def kill(self, actor_id: ActorId, reason: str = obituary.KILLED) -> None:
        """End an actor's process at once."""
        self.check_owner()
        actor = self._actors[actor_id]
        actor.die(obituary.of_process(actor.label, actor.pid, None, reason, ""))
        actor.kill(reason)
        self._unplace(actor)

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
        """Return the values of `refs` in order, raising the first error that is known.

        Raises:
            GetTimeoutError: Not all are ready in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for ref in refs:
            if not ref.done:
                self._wait_for(ref, refs, deadline, timeout)
        return [ref.value() for ref in refs]

    def _wait_for(
        self,
        ref: ObjectRef,
        refs: Sequence[ObjectRef],
        deadline: float | None,
        timeout: float | None,
    ) -> None:
        """Wait until `ref` is done, or any of `refs` has failed (which is raised)."""
        self.check_owner()
        source = ref.source
        pump = source.attend() if isinstance(source, ActorProcess) else None
        several = len(refs) > 1

        def ready() -> bool:
            if pump is not None and not ref.done:
                pump()
            return ref.done or (several and any(other.failed for other in refs))

        try:
            in_time = self.wait_until(ready, deadline)
        finally:
            if pump is not None:
                source.leave()  # type: ignore[union-attr]
        for other in refs if several else ():
            if other.failed:
                other.value()
        if not in_time:
            raise GetTimeoutError(self._late(refs, timeout))

    def _late(self, refs: Sequence[ObjectRef], timeout: float | None) -> str:
        waiting = [ref for ref in refs if not ref.done]
        what = ", ".join(
            f"{ref.what} on actor {ref.source.label}"
            for ref in waiting[:3]
            if isinstance(ref.source, ActorProcess)
        )
        more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""  # noqa: PLR2004
        return f"not ready after {timeout} s: {what}{more}. The calls go on; get can be repeated"

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
        self._place(actor)
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
            self.supervisor.call_soon(lambda: self._actors[actor_id].end_after_calls())

    def actor(self, actor_id: int) -> ActorProcess:
        """Return an actor of this session, dead or alive."""
        return self._actors[actor_id]

    # --- placement

    def _place(self, actor: ActorProcess) -> None:
        with self._lock:
            assigned = None if self._unplaced else self.gpus.take(actor.options.num_gpus or 0)
            if assigned is None:
                self._unplaced.append(actor)
        if assigned is not None:
            actor.start(assigned)
        elif not self.gpus.fits_ever(actor.options.num_gpus or 0):
            warnings.warn(
                f"actor {actor.label} asks for num_gpus={actor.options.num_gpus} and the session "
                f"has {self.gpus.total} in all: its calls will wait for ever. "
                "Start the session with init(num_gpus=...), more than there are if need be",
                stacklevel=4,
            )

    def _shortage(self, actor: ActorProcess) -> str:
        if actor not in self._unplaced:
            return ""
        return f": it waits for num_gpus={actor.options.num_gpus} of {self.gpus.total}"

    def _unplace(self, actor: ActorProcess) -> None:
        with self._lock:
            if actor not in self._unplaced:
                return
            self._unplaced.remove(actor)
        actor.bury_unborn()

    def _place_waiting(self) -> None:
        """Start the actors that waited for GPUs, in order, as far as there is room."""
        while True:
            with self._lock:
                if not self._unplaced or self.closed:
                    return
                actor = self._unplaced[0]
                assigned = self.gpus.take(actor.options.num_gpus or 0)
                if assigned is None:
                    return
                self._unplaced.popleft()
            actor.start(assigned)

    def needs_torch(self, options: ActorOptions) -> bool:
        """Tell whether an actor should start with torch imported, even if that must be awaited."""
        return bool(options.num_gpus) or "torch" in sys.modules

    def environment(
        self, options: ActorOptions, assigned: Sequence[int]
    ) -> tuple[dict[str, str], tuple[gpus.GpuId, ...]]:
        """Return an actor's environment variables and its GPU ids as users see them."""
        environment = base_environment()
        environment |= dict.fromkeys(_THREAD_VARIABLES, str(options.num_threads))
        default = self._visibility[0 if options.num_gpus else 1]
        visible = gpus.visible_devices(options.gpu_visibility or default, assigned, self._physical)
        if visible is not None:
            environment[gpus.VARIABLE] = visible
        environment |= self._env_vars | dict(options.env_vars)
        return environment, gpus.public_ids(assigned, self._physical)

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
        """Tell everybody who watches, then wake who waits."""
        for callback in self._watchers:
            callback(actor.actor_id, death)
        self.ring()

    def buried(self, actor: ActorProcess) -> None:
        """Give an ended actor's line and GPUs to others."""
        with self._lock:
            self._lines.discard(actor.line)
            self.gpus.give_back(actor.gpu_ids, actor.options.num_gpus or 0)
            actor.gpu_ids = ()
        self._place_waiting()
        self.ring()

    # --- end

    def close(self) -> None:
        """End every process and give everything back. Idempotent."""
        if self.closed or self.foreign:
            return
        try:
            for callback in self._closers:
                callback()
            self._stop_actors()
        finally:  # a second Ctrl-C skips the grace, not the end
            self._release()

    def _stop_actors(self) -> None:
        actors = [actor for actor in self._actors.values() if not actor.gone]
        self.closed = True
        for actor in actors:
            actor.reason = actor.reason or obituary.SESSION_ENDED
            actor.die(obituary.of_session(actor.label))
            actor.stop_at_once(STOP_AT_ONCE)
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
