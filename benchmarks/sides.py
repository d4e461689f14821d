"""Measure a work beside its floor, other limits and a peer: what most cases do."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import ours
from benchmarks.catalog import find
from benchmarks.rounds import compare, interleave, started

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from benchmarks.registry import Config, Row
    from benchmarks.rounds import Side


def measure(
    config: Config,
    what: str,
    floor: AbstractContextManager[Side] | None = None,
    limits: Sequence[Side] = (),
    trips: int | None = None,
) -> Row:
    """Return the row of a work.

    Args:
        config: Rounds, trips, peer.
        what: The work's name, here and in the peer's process.
        floor: What cannot be beaten, as processes that are forked first.
        limits: More of that, in this process.
        trips: Per block, if not the configuration's.
    """
    trips = config.trips if trips is None else trips
    with ExitStack() as stack:
        below = None if floor is None else stack.enter_context(floor)
        stack.enter_context(ours.session())
        mine = stack.enter_context(ours.side(find(what, trips)))
        other = stack.enter_context(started(config.open_peer(what)))
        sides = [mine, below, *limits, other.side]
        return compare(interleave(sides, config.rounds, trips)) | other.failure


def fewer(config: Config, budget: int = 1 << 26) -> int:
    """Return the trips of a block for payloads: fewer of large ones, so that a block is short."""
    if not config.nbytes:
        return config.trips
    return max(5, min(config.trips, 8 * budget // config.nbytes))
