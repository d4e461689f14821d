"""Time several sides in turn (A B A B ...) and compare them round by round.

All sides stay alive through all rounds; the one that is not being timed is parked and uses no
CPU. A shared machine drifts within seconds, so two figures are only comparable when they were
taken within milliseconds of each other: the ratio is taken per round, and its median reported.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

from benchmarks.stats import Block, paired_ratios, summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.registry import Row

BELOW = {
    "floor": "ratio",
    "memcpy": "memcpy_ratio",
    "pipe": "pipe_ratio",
    "shm": "shm_ratio",
    "copies": "copies_ratio",
    "alone": "alone_ratio",
}
"""Sides that are no peers but limits, and what ours over theirs is called."""
BLOCK_LIMIT_NS = 2_000_000_000
WARM_LIMIT_NS = 300_000_000
WARM_TRIPS = 100
"""Untimed trips before each block: they wake what was parked and settle the waiting policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the things compared."""

    name: str
    block: Callable[[int], Sequence[int]]
    """Time this many trips; return each one's nanoseconds."""


class SideFailedError(Exception):
    """A side that is not ours cannot be measured (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the rounds came to."""

    blocks: dict[str, list[Block]]
    """By side: a block a round."""
    failures: dict[str, str]
    """By side that failed: what happened."""


def checked(name: str, trip: Callable[[], object]) -> None:
    """Refuse a trip that does not answer 1."""
    if (answer := trip()) != 1:
        raise RuntimeError(f"{name} was sent 1 and answered {answer!r}")


def echoing(name: str, trip: Callable[[], object]) -> Side:
    """Make a side from a trip that sends 1 and brings it back; refuse one that does not."""
    checked(name, trip)
    return Side(name=name, block=timed(trip))


def timed(trip: Callable[[], object], warm_trips: int = WARM_TRIPS) -> Callable[[int], list[int]]:
    """Make a side's `block` from one trip; every side in this process is timed by this loop."""

    def block(trips: int) -> list[int]:
        _warm(trip, warm_trips)
        gc.collect()
        gc.disable()
        try:
            return _time(trip, trips)
        finally:
            gc.enable()

    return block


def _warm(trip: Callable[[], object], trips: int) -> None:
    """Do untimed trips, of slow ones only a few."""
    limit = perf_counter_ns() + WARM_LIMIT_NS
    for _ in range(trips):
        trip()
        if perf_counter_ns() > limit:
            break


def _time(trip: Callable[[], object], trips: int) -> list[int]:
    times: list[int] = []
    now = perf_counter_ns
    limit = now() + BLOCK_LIMIT_NS
    for _ in range(trips):
        begin = now()
        trip()
        end = now()
        times.append(end - begin)
        if end > limit:
            break
    return times


def interleave(sides: Sequence[Side | None], rounds: int, trips: int) -> Measured:
    """Time one block of every side per round; one that fails is left out from then on."""
    left = [side for side in sides if side is not None]
    blocks: dict[str, list[Block]] = {side.name: [] for side in left}
    failures: dict[str, str] = {}
    for _ in range(rounds):
        for side in tuple(left):
            try:
                blocks[side.name].append(summarize(side.block(trips)))
            except SideFailedError as error:
                failures[side.name] = str(error)
                del blocks[side.name]
                left.remove(side)
    return Measured(blocks=blocks, failures=failures)


def compare(measured: Measured) -> Row:
    """Make the row of a case from its sides: `ours`, `floor`, and any peers.

    `ratio` is ours over the floor, `<other>_ratio` the same for what else is below us
    (`BELOW`); `<peer>_ratio` is the peer over ours.
    """
    blocks = measured.blocks
    ours = [block.p50_ns for block in blocks["ours"]]
    row: Row = {f"{name}_error": text for name, text in measured.failures.items()}
    for name, of_side in blocks.items():
        row |= _figures(name, of_side)
    for name, of_side in blocks.items():
        p50s = [block.p50_ns for block in of_side]
        if name in BELOW:
            row |= _ratios(BELOW[name], ours, p50s)
        elif name != "ours":
            row |= _ratios(f"{name}_ratio", p50s, ours)
    return row | {"rounds": len(ours), "n": sum(block.n for block in blocks["ours"])}


def _figures(name: str, blocks: Sequence[Block]) -> Row:
    return {
        f"{name}_us": round(median(block.p50_ns for block in blocks) / 1e3, 2),
        f"{name}_p99_us": round(median(block.p99_ns for block in blocks) / 1e3, 2),
    }


def _ratios(name: str, above: Sequence[float], below: Sequence[float]) -> Row:
    ratios = paired_ratios(above, below)
    return {
        name: round(median(ratios), 2),
        f"{name}_lo": round(min(ratios), 2),
        f"{name}_hi": round(max(ratios), 2),
    }


@dataclass(slots=True)
class Started:
    """A peer's side that has come up, or not."""

    side: Side | None = None
    failure: Row = field(default_factory=dict)


@contextmanager
def started(opening: AbstractContextManager[Side | None]) -> Iterator[Started]:
    """Open a peer's side; one that does not come up leaves what happened for the row."""
    with ExitStack() as stack:
        result = Started()
        try:
            result.side = stack.enter_context(opening)
        except SideFailedError as error:
            result.failure = {"peer_error": str(error)}
        yield result
