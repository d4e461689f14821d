"""The case `chain`: an int through k actors in a row and back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import floor, ours, works
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import compare, interleave, started

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTORS = (1, 2, 4)


@case(
    full=Plan(actors=ACTORS, rounds=20, trips=1000),
    quick=Plan(actors=ACTORS, rounds=5, trips=300),
)
def chain(config: Config) -> Iterator[Row]:
    """Round trip of an int through a chain of echoing actors."""
    with ExitStack() as stack:
        below = stack.enter_context(floor.chain(config.actors))  # it forks: first
        stack.enter_context(ours.session())
        mine = stack.enter_context(ours.side(works.chain(config.actors)))
        other = stack.enter_context(started(config.open_peer(f"chain of {config.actors}")))
        measured = interleave([mine, below, other.side], config.rounds, config.trips)
        yield compare(measured) | other.failure
