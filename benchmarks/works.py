"""Write what is measured once, for every system that has Ray's names: here, without graphs.

A work starts what it needs in a running session and yields its block, which times so many trips.
Ours runs it in this process, a peer in one of its own (`benchmarks.serve`). Works of graphs are in
`benchmarks.graphs`; `benchmarks.catalog` finds all by name.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.rounds import checked, timed
from benchmarks.values import make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.systems import System

MIB = 1 << 20

Block: TypeAlias = "Callable[[int], Sequence[int]]"
Work: TypeAlias = "Callable[[System], AbstractContextManager[Block]]"


class Worker:
    """Do what the measured calls ask for."""

    def __init__(self, core: str = "runtime") -> None:
        self._core = core
        self._held: Any = None

    def echo(self, value: object) -> object:
        """Return `value`."""
        return value

    def fetch(self, refs: Sequence[Any]) -> int:
        """Get a value by its reference, which lies in a list and so arrives as one."""
        value = importlib.import_module(self._core).get(refs[0])
        return value if isinstance(value, int) else int(value[0])

    def first(self, array: Any) -> int:
        """Return the first item of an array."""
        return int(array[0])

    def join(self, *values: object) -> object:
        """Return the first of several values."""
        return values[0]

    def some(self, value: Any) -> int:
        """Return 1 for anything that holds something."""
        return 1 if len(value) else 0

    def hold(self, kind: str, nbytes: int) -> int:
        """Keep a value that is this actor's own, for `give`."""
        self._held = make(kind, nbytes)
        return 1

    def hold_floats(self, count: int) -> int:
        """Keep a tensor of so many float32 ones, for `give`."""
        import torch  # noqa: PLC0415  most cases do without

        self._held = torch.ones(count, dtype=torch.float32)
        return 1

    def give(self, _asked: object) -> Any:
        """Return what was kept."""
        return self._held

    def head(self, tensor: Any) -> float:
        """Return the first item of a tensor."""
        return float(tensor[0])


def _echo(value: object) -> object:
    return value


def actor_of(system: System) -> Any:
    """Start an actor and wait for it."""
    core = system.load()
    actor = core.remote(Worker).remote(system.core)
    core.get(actor.echo.remote(0))
    return actor


def _task(system: System) -> Any:
    """Return a function for tasks, with workers started."""
    core = system.load()
    task = core.remote(_echo)
    core.get([task.remote(number) for number in range(100)])
    return task


def _trip(make: Callable[[System], Callable[[], object]]) -> Work:
    """Make a work of a trip that answers 1."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        trip = make(system)
        checked(system.name, trip)
        yield timed(trip)

    return work


def _batch(make: Callable[[System], Callable[[int], Any]], count: int) -> Work:
    """Make a work whose block is one batch, got at once; its only time is that of one call."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        call, get = make(system), system.load().get

        def block(_trips: int) -> list[int]:
            begin = perf_counter_ns()
            answers = get([call(number) for number in range(count)])
            end = perf_counter_ns()
            if answers != list(range(count)):
                raise RuntimeError("a batch did not come back as it was sent")
            return [(end - begin) // count]

        yield block

    return work


def _call(system: System) -> Callable[[], object]:
    echo, get = actor_of(system).echo, system.load().get
    return lambda: get(echo.remote(1))


def _run(system: System) -> Callable[[], object]:
    task, get = _task(system), system.load().get
    return lambda: get(task.remote(1))


def _put(system: System) -> Callable[[], object]:
    core = system.load()
    return lambda: core.get(core.put(1))


def _put_array(system: System) -> Callable[[], object]:
    core, array = system.load(), np.ones(MIB, dtype=np.uint8)
    return lambda: int(core.get(core.put(array))[0])


def _put_for_actor(system: System) -> Callable[[], object]:
    core, fetch = system.load(), actor_of(system).fetch
    return lambda: core.get(fetch.remote([core.put(1)]))


def _put_array_for_actor(system: System) -> Callable[[], object]:
    core, fetch, array = system.load(), actor_of(system).fetch, np.ones(MIB, dtype=np.uint8)
    return lambda: core.get(fetch.remote([core.put(array)]))


def _call_with_array(system: System) -> Callable[[], object]:
    core, first, array = system.load(), actor_of(system).first, np.ones(MIB, dtype=np.uint8)
    return lambda: core.get(first.remote(array))


def _echo_array(system: System) -> Callable[[], object]:
    core, echo, array = system.load(), actor_of(system).echo, np.ones(MIB, dtype=np.uint8)
    return lambda: int(core.get(echo.remote(array))[0])


def core_works(trips: int) -> dict[str, Work]:
    """Return what is measured without graphs, by name; batches are multiples of `trips`."""
    few, many = 3 * trips, 20 * trips
    return {
        "actor call": _trip(_call),
        f"actor call, {few} at once": _batch(lambda system: actor_of(system).echo.remote, few),
        "task": _trip(_run),
        f"task, {few} at once": _batch(lambda system: _task(system).remote, few),
        f"task, {many} at once": _batch(lambda system: _task(system).remote, many),
        "put and get, int": _trip(_put),
        "put and get, 1 MiB": _trip(_put_array),
        "put, get in an actor, int": _trip(_put_for_actor),
        "put, get in an actor, 1 MiB": _trip(_put_array_for_actor),
        "actor call with 1 MiB": _trip(_call_with_array),
        "actor call with 1 MiB there and back": _trip(_echo_array),
    }
