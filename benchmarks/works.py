"""Write what is measured once, for every system that has Ray's names.

A work starts what it needs in a running session and yields its block, which times so many trips.
Ours runs it in this process, a peer in one of its own (`benchmarks.serve`).
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.rounds import checked, timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Name the modules of a system."""

    name: str
    core: str
    """Of tasks, actors and objects."""
    dag: str
    """Of nodes."""
    options: tuple[tuple[str, Any], ...] = ()
    """For `init`."""

    def load(self) -> Any:
        """Return the module of tasks, actors and objects."""
        return importlib.import_module(self.core)

    def nodes(self) -> Any:
        """Return the module of nodes."""
        return importlib.import_module(self.dag)


OURS = System(name="ours", core="runtime", dag="compiled_dag")
RAY = System(
    name="ray",
    core="ray",
    dag="ray.dag",
    options=(
        ("include_dashboard", False),
        ("log_to_driver", False),
        ("_node_ip_address", "127.0.0.1"),
    ),
)
SYSTEMS = {system.name: system for system in (OURS, RAY)}

Block: TypeAlias = "Callable[[int], Sequence[int]]"
Work: TypeAlias = "Callable[[System], AbstractContextManager[Block]]"


class Worker:
    """Do what the measured calls ask for."""

    def __init__(self, core: str = "runtime") -> None:
        self._core = core

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


def _echo(value: object) -> object:
    return value


def _actor(system: System) -> Any:
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
    echo, get = _actor(system).echo, system.load().get
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
    core, fetch = system.load(), _actor(system).fetch
    return lambda: core.get(fetch.remote([core.put(1)]))


def _put_array_for_actor(system: System) -> Callable[[], object]:
    core, fetch, array = system.load(), _actor(system).fetch, np.ones(MIB, dtype=np.uint8)
    return lambda: core.get(fetch.remote([core.put(array)]))


def _call_with_array(system: System) -> Callable[[], object]:
    core, first, array = system.load(), _actor(system).first, np.ones(MIB, dtype=np.uint8)
    return lambda: core.get(first.remote(array))


def core_works(trips: int) -> dict[str, Work]:
    """Return what is measured without graphs, by name; batches are multiples of `trips`."""
    few, many = 3 * trips, 20 * trips
    return {
        "actor call": _trip(_call),
        f"actor call, {few} at once": _batch(lambda system: _actor(system).echo.remote, few),
        "task": _trip(_run),
        f"task, {few} at once": _batch(lambda system: _task(system).remote, few),
        f"task, {many} at once": _batch(lambda system: _task(system).remote, many),
        "put and get, int": _trip(_put),
        "put and get, 1 MiB": _trip(_put_array),
        "put, get in an actor, int": _trip(_put_for_actor),
        "put, get in an actor, 1 MiB": _trip(_put_array_for_actor),
        "actor call with 1 MiB": _trip(_call_with_array),
    }


def chain(length: int) -> Work:
    """Return the work of a compiled chain of `length` echoing actors."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        core = system.load()
        actors = [_actor(system) for _ in range(length)]
        with system.nodes().InputNode() as node:
            dag = node
            for actor in actors:
                dag = actor.echo.bind(dag)
        compiled = dag.experimental_compile()
        try:
            execute, get = compiled.execute, core.get

            def trip() -> object:
                return get(execute(1))

            checked(system.name, trip)
            yield timed(trip)
        finally:
            compiled.teardown()

    return work


def find(what: str, trips: int) -> Work:
    """Return a work by its name.

    Raises:
        KeyError: There is none of that name.
    """
    name, _, count = what.partition(" of ")
    return chain(int(count)) if name == "chain" else core_works(trips)[what]
