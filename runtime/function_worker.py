"""A process that runs calls of functions for one compiled graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.options import ActorOptions
from runtime.resources import Demand

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from runtime.options import TaskOptions


class FunctionWorker:
    """What is the actor in such a process: it has nothing, the graph brings the functions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions(ActorOptions):
    """Of a process for functions with the same options."""

    @property
    def demand(self) -> Demand:
        """What it holds while it lives: no CPUs, as an actor that asks for none."""
        return Demand.of(0, self.num_gpus or 0, self.resources)


def worker_options(options: TaskOptions) -> WorkerOptions:
    """Return what a process for functions with these options is started with."""
    return WorkerOptions(
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        resources=options.resources,
        gpu_visibility=options.gpu_visibility,
        env_vars=options.env_vars,
        working_dir=options.working_dir,
    )


def kind_of(options: TaskOptions) -> Hashable:
    """Return what is equal for functions that may share a process."""
    return (
        options.num_threads,
        options.num_gpus or 0,
        tuple(sorted(options.resources.items())),
        options.gpu_visibility,
        tuple(sorted(options.env_vars.items())),
        options.working_dir,
    )


def room_for(options: TaskOptions, free: Mapping[str, float]) -> int:
    """Return how many such processes there is room for, at least 1.

    Args:
        options: Of the functions.
        free: Resources that nobody holds.
    """
    wanted = {"CPU": max(1.0, options.num_cpus or 1), **options.resources}
    return max(1, min(int(free.get(name, 0) / amount) for name, amount in wanted.items() if amount))
