"""Lanes: tasks of one kind that wait; the table of them; those that wait for their arguments."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from runtime.options import ActorOptions, TaskOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.objects import ObjectRef
    from runtime.pool import PoolWorker
    from runtime.resources import Demand
    from runtime.task import Task

_MOST_KNOWN: Final = 256
"""Options whose lanes are remembered."""


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

    def take_all(self) -> list[Task]:
        """Take out all that waits."""
        tasks = [task for _, task in self.queue]
        self.queue.clear()
        return tasks


class Lanes:
    """The lanes of a session; its users hold the scheduler's lock."""

    def __init__(self) -> None:
        self._lanes: dict[Any, Lane] = {}
        self._known: dict[int, tuple[TaskOptions, Lane]] = {}
        """By the identity of options, which it keeps: those of a function are one object."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def of(self, options: TaskOptions) -> Lane:
        """Return the lane of tasks with these options."""
        known = self._known.get(id(options))
        if known is not None:
            return known[1]
        key = key_of(options)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane.of(key, options)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[id(options)] = options, lane
        return lane

    @property
    def are_starved(self) -> bool:
        """Whether a task waits for resources that no task has: actors have them all."""
        lanes = list(self._lanes.values())
        return any(lane.starved and lane.queue for lane in lanes) and not any(
            lane.workers for lane in lanes
        )

    def older_waits(self, lane: Lane) -> bool:
        """Tell whether another lane with an older task waits for resources."""
        return len(self._lanes) > 1 and any(
            other.starved and other.queue and (not lane.queue or other.age < lane.age)
            for other in self._lanes.values()
            if other is not lane
        )


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
