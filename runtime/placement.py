"""Which actor may start, on which GPUs, in which environment."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime import gpus
from runtime.options import THREAD_VARIABLES, ActorOptions, needs_fresh_interpreter
from runtime.zygotes import base_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.process import ActorProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an actor's process is started with."""

    environment: Mapping[str, str]
    num_threads: int | None
    gpu_ids: tuple[gpus.GpuId, ...]
    """As users see them."""
    fresh: bool
    """Whether it takes a new interpreter."""


class Placement:
    """The session's GPUs, and the actors that wait for some; first come, first served."""

    def __init__(
        self, *, num_gpus: float | None, visibility: str | None, env_vars: Mapping[str, str]
    ) -> None:
        self._visibility = gpus.parse_visibility(visibility)
        self._env_vars = dict(env_vars)
        self._physical = gpus.driver_devices()
        self._pool = gpus.GpuPool(len(self._physical) if num_gpus is None else num_gpus)
        self._lock = threading.Lock()
        self._waiting: deque[ActorProcess] = deque()
        self._warned = False

    @property
    def num_gpus(self) -> float:
        """Logical GPUs in all."""
        return self._pool.total

    # --- who may start

    def place(self, actor: ActorProcess) -> None:
        """Start an actor, at once or when there is room."""
        count = actor.options.num_gpus or 0
        if not self._pool.fits_ever(count):
            self._warn_for_ever(actor, count)
            return
        with self._lock:
            assigned = self._pool.take(count) if not count or not self._waiting else None
            if assigned is None:
                self._waiting.append(actor)
        if assigned is not None:
            actor.start(assigned)
            self._warn_about_devices(count)

    def _warn_for_ever(self, actor: ActorProcess, count: float) -> None:
        warnings.warn(
            f"actor {actor.label} asks for num_gpus={count} and the session has "
            f"{self._pool.total} in all: its calls will wait for ever. "
            "Start the session with init(num_gpus=...), more than there are if need be",
            stacklevel=6,
        )

    def _warn_about_devices(self, count: float) -> None:
        """Say once when logical GPUs are not what they seem."""
        num_physical = len(self._physical)
        if not count or self._warned or self._pool.total <= num_physical:
            return
        self._warned = True
        how = f"shared: logical GPU i is device i % {num_physical}" if num_physical else "fake"
        warnings.warn(
            f"num_gpus={self._pool.total} and {num_physical} physical GPUs: they are {how}",
            stacklevel=6,
        )

    def withdraw(self, actor: ActorProcess) -> bool:
        """Forget an actor that waits; returns whether it has no process to end."""
        with self._lock:
            if actor in self._waiting:
                self._waiting.remove(actor)
                return True
        return not self._pool.fits_ever(actor.options.num_gpus or 0)

    def give_back(self, actor: ActorProcess) -> None:
        """Take back the GPUs of an actor that has ended."""
        with self._lock:
            self._pool.give_back(actor.gpu_ids, actor.options.num_gpus or 0)
            actor.gpu_ids = ()

    def start_waiting(self) -> None:
        """Start the actors that waited, in order, as far as there is room."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                actor = self._waiting[0]
                assigned = self._pool.take(actor.options.num_gpus or 0)
                if assigned is None:
                    return
                self._waiting.popleft()
            actor.start(assigned)

    # --- how they start

    def needs_torch(self, options: ActorOptions) -> bool:
        """Tell whether an actor should start with torch imported, even if that must be awaited.

        Without it the actor imports torch for itself when the first tensor arrives, for seconds,
        in the middle of a call or an execution. So it waits wherever a tensor can come from.
        """
        return bool(options.num_gpus) or "torch" in sys.modules

    def needs_of(self, options: ActorOptions, assigned: Sequence[int]) -> Needs:
        """Return what an actor's process needs."""
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
        return Needs(
            environment=environment | asked,
            num_threads=num_threads,
            gpu_ids=gpus.public_ids(assigned, self._physical),
            fresh=needs_fresh_interpreter(asked),
        )

    def physical_gpus(self, assigned: Sequence[int]) -> tuple[str, ...]:
        """Return the physical devices behind logical GPUs."""
        return gpus.devices_of(assigned, self._physical)
