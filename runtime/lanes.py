"""Lanes: tasks of one kind that wait, and those that wait for their arguments."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from runtime.options import ActorOptions, TaskOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.objects import ObjectRef
    from runtime.pool import PoolWorker
    from runtime.resources import Demand
    from runtime.task import Task


class Lane:
    """Tasks of one kind that wait, and the workers that serve them."""

    def __init__(self, key: Any, demand: Demand, kind: ActorOptions) -> None:
        self.key = key
        self.demand = demand
        self.kind = kind
        self.queue: deque[tuple[int, Task]] = deque()
        """With the time of their coming, as a count."""
        self.workers: list[PoolWorker] = []
        self.hopeless = False
        """Whether the session, even idle, has less than it demands."""
        self.num_stillborn = 0
        """Processes of its kind that died before they were up, since one was."""
        self.starved = False
        """Whether it waits for resources that others hold."""

    @classmethod
    def of(cls, key: Any, options: TaskOptions) -> Lane:
        """Make the lane of tasks with these options."""
        kind = ActorOptions(
            num_cpus=options.num_cpus,
            num_gpus=options.num_gpus,
            gpu_visibility=options.gpu_visibility,
            env_vars=options.env_vars,
            working_dir=options.working_dir,
        )
        return cls(key, options.demand, kind)

    @property
    def age(self) -> int:
        """The count of its oldest task."""
        return self.queue[0][0]


def key_of(options: TaskOptions) -> Any:
    """Return what tasks of one lane have in common: what they hold, then what process they need."""
    return (
        options.demand,
        options.num_threads,
        options.gpu_visibility,
        tuple(sorted(options.env_vars.items())),
        options.working_dir,
    )


def when_all_done(refs: Sequence[ObjectRef], callback: Callable[[], None]) -> None:
    """Call `callback` once, when all are done or one has failed."""
    left = itertools.count(len({ref.number for ref in refs}) - 1, -1)
    once = itertools.count()

    def one_done(ref: ObjectRef) -> None:
        if (ref.failed or next(left) == 0) and next(once) == 0:
            callback()

    for ref in {ref.number: ref for ref in refs}.values():
        ref.when_done(lambda ref=ref: one_done(ref))  # type: ignore[misc]
