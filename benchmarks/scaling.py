"""The case `scaling`: what an execution, or compiling, costs against one size at a time.

Each curve ends with a row of its fit. `tail` is the exponent that counts: 1 is linear.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import ours
from benchmarks.catalog import find
from benchmarks.fit import WORSE_THAN_LINEAR, growth
from benchmarks.registry import Config, Plan, Row, case

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20


class Curve(NamedTuple):
    """A work with one parameter left out, and what that may be."""

    work: str
    sizes: tuple[int, ...]
    trips: int


CURVES = {
    "actors in a chain": Curve("chain {}", (1, 2, 3, 4, 6, 8), 1000),
    "actors side by side": Curve("fan-out {}", (1, 2, 3, 4, 6, 8), 1000),
    "nodes on one actor": Curve("row {} 1", (1, 4, 16, 64, 256, 1000), 200),
    "depth, on two actors": Curve("row {} 2", (2, 4, 8, 16, 32, 64), 500),
    "bytes in": Curve("payload numpy in {}", (KIB, 64 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB), 50),
    "in flight": Curve("pipelined 1 {}", (1, 4, 16, 64, 256, 1000), 4000),
    "graphs on the actor": Curve("resident {}", (1, 2, 4, 8, 16, 32), 500),
    "nodes compiled": Curve("compile {} 4", (10, 30, 100, 300, 1000), 1),
    "actors compiled": Curve("compile 32 {}", (1, 2, 4, 8, 16, 32), 1),
}


@case(
    full=Plan(actors=(1,), rounds=7, whats=tuple(CURVES)),
    quick=Plan(actors=(1,), rounds=2, whats=tuple(CURVES)),
    limit_s=240.0,
)
def scaling(config: Config) -> Iterator[Row]:
    """Cost against actors, nodes, depth, bytes, executions in flight, graphs; with a fit each."""
    curve = CURVES[config.what]
    sizes = curve.sizes[::2] if config.quick else curve.sizes
    costs = []
    for size in sizes:
        costs.append(_cost(curve, size, config))
        yield {"size": size, "ours_us": round(costs[-1], 2)}
    fitted = growth(sizes, costs)
    yield {
        "exponent": round(fitted.exponent, 2),
        "tail": round(fitted.tail, 2),
        "fixed_us": round(fitted.fixed, 2),
        "each_us": float(f"{fitted.each:.3g}"),
        "worse_than_linear": fitted.tail >= WORSE_THAN_LINEAR,
    }


def _cost(curve: Curve, size: int, config: Config) -> float:
    """Return the median time of a trip in microseconds."""
    trips = max(1, curve.trips // 5) if config.quick else curve.trips
    work = find(curve.work.format(size), trips)
    with ours.session(), ours.side(work) as side:
        return median(median(side.block(trips)) for _ in range(config.rounds)) / 1e3
