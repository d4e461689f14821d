"""The case `core`: calls of actors, tasks and objects, without a graph."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

import runtime
from benchmarks import ours, pipe
from benchmarks.memory import settled_pss
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import Side, compare, echoing, interleave, timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IDLE_ACTORS = 4
LOAD_LIMIT_S = 120.0
MIB = 1 << 20


class Worker(ours.Echo):
    """Do what the measured calls ask for."""

    def fetch(self, refs: Sequence[Any]) -> int:
        """Get a value by its reference, which lies in a list and so arrives as one."""
        value = runtime.get(refs[0])
        return value if isinstance(value, int) else int(value[0])

    def first(self, array: Any) -> int:
        """Return the first item of an array."""
        return int(array[0])


def _echo(value: object) -> object:
    return value


@case(
    full=Plan(actors=(1,), rounds=7, trips=1000),
    quick=Plan(actors=(1,), rounds=2, trips=100),
    limit_s=600.0,
)
def core(config: Config) -> Iterator[Row]:
    """Calls, tasks, objects: round trips, batches, memory, many at once."""
    with ExitStack() as stack:
        below = stack.enter_context(pipe.ping_pong())  # it forks: first
        stack.enter_context(ours.session())
        settled_pss()  # processes that fork actors go on importing for seconds
        for what, side in _sides(config.trips):
            row: Row = {"what": what}
            yield row | compare(interleave([side, below], config.rounds, config.trips))
    for name, number in (
        ("memory", IDLE_ACTORS),
        ("pending", 100 * config.trips),
        ("alive", config.trips // 5),
    ):
        yield {"case": f"core-{name}", **_load(name, number)}


def _sides(trips: int) -> Iterator[tuple[str, Side]]:
    """Yield what is measured beside the floor, one at a time."""
    actor = runtime.remote(Worker).remote()
    task = runtime.remote(_echo)
    echo, fetch, first = actor.echo.remote, actor.fetch.remote, actor.first.remote
    get, put = runtime.get, runtime.put
    array = np.ones(MIB, dtype=np.uint8)
    get([task.remote(number) for number in range(100)])  # starts the workers

    yield "actor call", echoing("ours", lambda: get(echo(1)))
    yield f"actor call, {3 * trips} at once", _batch(echo, 3 * trips)
    yield "task", echoing("ours", lambda: get(task.remote(1)))
    for count in (3 * trips, 20 * trips):
        yield f"task, {count} at once", _batch(task.remote, count)
    yield "put and get, int", echoing("ours", lambda: get(put(1)))
    yield "put and get, 1 MiB", _side(lambda: get(put(array)))
    yield "put, get in an actor, int", echoing("ours", lambda: get(fetch([put(1)])))
    yield "put, get in an actor, 1 MiB", echoing("ours", lambda: get(fetch([put(array)])))
    yield "actor call with 1 MiB", echoing("ours", lambda: get(first(array)))


def _side(trip: Callable[[], object]) -> Side:
    return Side(name="ours", block=timed(trip))


def _batch(call: Callable[[int], Any], count: int) -> Side:
    """Make a side whose block is one batch, got at once; its only time is that of one call."""

    def block(_trips: int) -> list[int]:
        begin = perf_counter_ns()
        answers = runtime.get([call(number) for number in range(count)])
        end = perf_counter_ns()
        if answers != list(range(count)):
            raise RuntimeError("a batch did not come back as it was sent")
        return [(end - begin) // count]

    return Side(name="ours", block=block)


def _load(name: str, number: int) -> Row:
    """Run a part in a fresh interpreter; see `benchmarks.load`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", name, str(number)],
        check=False,
        capture_output=True,
        text=True,
        timeout=LOAD_LIMIT_S,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.load {name} ended with {done.returncode}:\n{done.stderr}")
    row: Row = json.loads(done.stdout)
    return row
