"""The case of collectives: allreduce in a graph, against the same library without one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import ours, ranks
from benchmarks.catalog import find
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import compare, interleave, started

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20
_SLOW_BYTES = MIB
_WHATS = ("gloo", "shm", "gloo inside", "shm inside")


@case(
    full=Plan(
        actors=(2, 4),
        rounds=5,
        trips=100,
        whats=_WHATS,
        sizes=(4, KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB),
    ),
    quick=Plan(actors=(2,), rounds=2, trips=30, whats=_WHATS, sizes=(4, MIB)),
    limit_s=240.0,
)
def collectives(config: Config) -> Iterator[Row]:
    """Allreduce of float32 in a graph: beside raw torch.distributed, and numpy in shared memory."""
    work = f"allreduce {config.actors} {config.nbytes} {config.what}"
    trips = max(3, min(config.trips, 50 * _SLOW_BYTES // config.nbytes))
    with ExitStack() as stack:
        sides = [
            stack.enter_context(ranks.raw(kind, config.actors, config.nbytes))
            for kind in ("gloo", "shm")
        ]
        stack.enter_context(ours.session())
        mine = stack.enter_context(ours.side(find(work, trips)))
        other = stack.enter_context(started(config.open_peer(work)))
        yield compare(interleave([mine, *sides, other.side], config.rounds, trips)) | other.failure
