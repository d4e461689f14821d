"""The case `core`: calls of actors, tasks and objects, without a graph."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import ours, pipe
from benchmarks.fresh import load
from benchmarks.memory import settled_pss
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import compare, interleave, started
from benchmarks.works import core_works

if TYPE_CHECKING:
    from collections.abc import Iterator


@case(
    full=Plan(actors=(1,), rounds=7, trips=1000),
    quick=Plan(actors=(1,), rounds=2, trips=100),
    limit_s=1800.0,
)
def core(config: Config) -> Iterator[Row]:
    """Calls, tasks, objects: round trips, batches, many at once."""
    with ExitStack() as stack:
        below = stack.enter_context(pipe.ping_pong())  # it forks: first
        stack.enter_context(ours.session())
        settled_pss()  # processes that fork actors go on importing for seconds
        for what, work in core_works(config.trips).items():
            with ours.side(work) as mine, started(config.open_peer(what)) as other:
                sides = [mine, below, other.side]
                measured = interleave(sides, config.rounds, config.trips)
            yield {"what": what} | compare(measured) | other.failure
    for name, number in (("pending", 100 * config.trips), ("alive", config.trips // 5)):
        yield {"case": f"core-{name}", **load(name, number)}
