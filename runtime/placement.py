"""Which actor may start, on which GPUs, in which environment."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import GraphError
from compiled_dag.notice import warn
from compiled_dag.options import DAGContext
from runtime import gpus, torch_use
from runtime.environment import (
    THREAD_VARIABLES,
    check_set_up,
    import_path,
    needs_fresh_interpreter,
)
from runtime.launch import absolute_path, base_environment
from runtime.messages import Spawn
from runtime.resources import Grant, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runtime.options import ActorOptions
    from runtime.process import ActorProcess

_START_WITH_MORE: Final = (
    "Start the session with more: init(num_cpus=, num_gpus=, resources=), which are only counted, "
    "not measured"
)


class Placement:
    """The session's resources, and the actors that wait for some; first come, first served."""

    def __init__(
        self,
        *,
        num_cpus: float | None,
        num_gpus: float | None,
        resources: Mapping[str, float],
        visibility: str | None,
        env_vars: Mapping[str, str],
        working_dir: str | None,
        on_wait: Callable[[], None],
    ) -> None:
        self._visibility = gpus.session_visibility(visibility)
        self._env_vars = dict(env_vars)
        self._working_dir = working_dir
        self._on_wait = on_wait
        found = gpus.count_devices()
        self._physical = gpus.physical_devices(os.environ, found)
        unknown = gpus.unknown_device(os.environ, found)
        if unknown:
            warn(unknown)
        self.num_gpus = len(self._physical) if num_gpus is None else num_gpus
        self.ledger = Ledger(
            len(os.sched_getaffinity(0)) if num_cpus is None else num_cpus,
            gpus.GpuPool(self.num_gpus),
            resources,
        )
        self._lock = threading.Lock()
        self._waiting: deque[ActorProcess] = deque()
        self._hopeless: set[ActorProcess] = set()
        self._warned = False
        self.uses_torch = False
        """Whether code that was sent refers to torch."""

    # --- who may start

    def place(self, actor: ActorProcess) -> None:
        """Start an actor, at once or when there is room."""
        demand = actor.options.demand
        missing = self.ledger.missing(demand)
        if missing:
            self._hopeless.add(actor)
            self.warn_for_ever(f"actor {actor.label}", missing)
            return
        with self._lock:
            grant = None if self._waiting else self._take(actor)
            if grant is None:
                self._waiting.append(actor)
        if grant is None:
            self._on_wait()
        else:
            actor.life.start(grant)
            self.warn_about_devices(demand.num_gpus)

    @property
    def is_awaited(self) -> bool:
        """Whether an actor waits for resources."""
        return bool(self._waiting)

    def _take(self, actor: ActorProcess) -> Grant | None:
        options = actor.options
        return self.ledger.take(options.demand, insist=options.required != options.demand)

    def warn_for_ever(self, who: str, missing: str) -> None:
        """Say that something can never be placed."""
        warn(
            f"{who} asks for more than the session has in all ({missing}): its calls will wait for "
            f"ever. {_START_WITH_MORE}"
        )

    def warn_about_devices(self, count: float) -> None:
        """Say once when logical GPUs are not what they seem."""
        num_physical = len(self._physical)
        if not count or self._warned or self.num_gpus <= num_physical:
            return
        self._warned = True
        how = f"shared: logical GPU i is device i % {num_physical}" if num_physical else "fake"
        warn(f"num_gpus={self.num_gpus} and {num_physical} physical GPUs: they are {how}")

    def withdraw(self, actor: ActorProcess) -> bool:
        """Forget an actor that waits; returns whether it has no process to end."""
        with self._lock:
            if actor in self._waiting:
                self._waiting.remove(actor)
                return True
        return actor in self._hopeless

    def give_back(self, grant: Grant) -> None:
        """Take back what an actor or a worker held."""
        self.ledger.give_back(grant)

    def start_waiting(self) -> None:
        """Start the actors that waited, in order, as far as there is room."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                actor = self._waiting[0]
                grant = self._take(actor)
                if grant is None:
                    return
                self._waiting.popleft()
            actor.life.start(grant)

    def check_hope(self, actor: ActorProcess) -> None:
        """Refuse to wait for an actor that can never start.

        Raises:
            GraphError: It asks for more than the session has.
        """
        if actor in self._hopeless and actor.death is None:
            missing = self.ledger.missing(actor.options.demand)
            raise GraphError(
                f"actor {actor.label} can never start: it asks for more than the session has in "
                f"all ({missing}). {_START_WITH_MORE}"
            )

    def waits_for(self, actor: ActorProcess) -> str:
        """Return what an actor that has no process yet waits for."""
        with self._lock:
            waits = actor in self._waiting or actor in self._hopeless
        if not waits:
            return "it is being started"
        return f"it needs {actor.options.demand}; free are {self.ledger.available()}"

    # --- how they start

    def needs_torch(self, options: ActorOptions) -> bool:
        """Tell whether an actor should start with torch imported, even if that must be awaited.

        Without it the actor imports torch for itself when the first tensor arrives, for seconds,
        in the middle of a call or an execution. So it waits wherever a tensor can come from.
        """
        return bool(options.num_gpus) or self.uses_torch or torch_use.is_imported()

    def spawn_of(self, actor: ActorProcess, fds: Sequence[int]) -> Spawn:
        """Return the message that asks for an actor's process, with the descriptors it gets.

        Raises:
            RuntimeEnvSetupError: It cannot have its environment any more.
        """
        options, assigned = actor.options, actor.life.grant.gpu_ids
        own_folder = options.working_dir or self._working_dir
        check_set_up(own_folder)
        asked = self._env_vars | dict(options.env_vars)
        num_threads = None
        environment = base_environment()
        if THREAD_VARIABLES.isdisjoint(asked):
            num_threads = options.num_threads
            environment |= dict.fromkeys(THREAD_VARIABLES, str(num_threads))
        default = self._visibility[0 if options.num_gpus else 1]
        visible = gpus.visible_devices(options.gpu_visibility or default, assigned, self._physical)
        if visible is not None:
            environment[gpus.VARIABLE] = visible
        return Spawn(
            actor_id=actor.actor_id,
            class_name=actor.class_name,
            line=actor.line,
            environment=environment | asked,
            num_threads=num_threads,
            folder=own_folder or os.getcwd(),  # noqa: PTH109  a str
            path=tuple(import_path(asked, own_folder, absolute_path())),
            gpu_ids=gpus.public_ids(assigned, self._physical),
            max_concurrency=options.max_concurrency,
            concurrency_groups=options.concurrency_groups,
            graph_defaults=DAGContext.changes(),
            fresh=needs_fresh_interpreter(asked),
            fds=tuple(fds),
        )

    def runtime_env(self, options: ActorOptions | None) -> dict[str, Any]:
        """Return the surroundings that a process was asked for; None is the driver."""
        env_vars, folder = self._env_vars, self._working_dir
        if options is not None:
            env_vars = env_vars | dict(options.env_vars)
            folder = options.working_dir or folder
        found = {"env_vars": env_vars, "working_dir": folder}
        return {key: value for key, value in found.items() if value}

    def has_physical_gpus(self) -> bool:
        """Tell whether logical GPUs stand for devices; if not they are fake."""
        return bool(self._physical)

    def physical_gpus(self, assigned: Sequence[int]) -> tuple[str, ...]:
        """Return the physical devices behind logical GPUs."""
        return gpus.devices_of(assigned, self._physical)
