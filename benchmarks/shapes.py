"""The cases of graphs of several shapes, with an int: round trips, pipelined and awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import floor
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.sides import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL, _QUICK = 20, 5
"""Rounds."""


@case(
    full=Plan(actors=(1, 2, 4, 8), rounds=_FULL, trips=1000),
    quick=Plan(actors=(1, 2, 4, 8), rounds=_QUICK, trips=300),
)
def chain(config: Config) -> Iterator[Row]:
    """Round trip of an int through a chain of echoing actors."""
    below = floor.running(floor.chain(config.actors))
    yield measure(config, f"chain {config.actors}", below)


@case(
    full=Plan(actors=(2, 4, 8), rounds=_FULL, trips=1000),
    quick=Plan(actors=(2, 4), rounds=_QUICK, trips=300),
)
def fan_out(config: Config) -> Iterator[Row]:
    """Round trip of an int to actors side by side, all answers got."""
    below = floor.running(floor.fan_out(config.actors))
    yield measure(config, f"fan-out {config.actors}", below)


@case(
    full=Plan(actors=(4,), rounds=_FULL, trips=1000),
    quick=Plan(actors=(4,), rounds=_QUICK, trips=300),
)
def fan_in(config: Config) -> Iterator[Row]:
    """Round trip of an int through actors side by side and one that joins what they send."""
    yield measure(config, f"fan-in {config.actors}", floor.running(floor.fan_in(config.actors)))


@case(
    full=Plan(actors=(4,), rounds=_FULL, trips=1000),
    quick=Plan(actors=(4,), rounds=_QUICK, trips=300),
)
def diamond(config: Config) -> Iterator[Row]:
    """Round trip of an int through one actor, two side by side, and one."""
    yield measure(config, "diamond", floor.running(floor.diamond()))


@case(
    full=Plan(actors=(1, 4), rounds=7, trips=5000, whats=("1", "10", "100")),
    quick=Plan(actors=(1, 4), rounds=3, trips=1000, whats=("10",)),
)
def pipelined(config: Config) -> Iterator[Row]:
    """Time per execution with many in flight, through a chain."""
    row = measure(config, f"pipelined {config.actors} {config.what}")
    rates = {
        f"{name.removesuffix('_us')}_per_s": round(1e6 / value)
        for name, value in row.items()
        if name.endswith("_us") and not name.endswith("p99_us") and isinstance(value, float)
    }
    timed = {name: value for name, value in row.items() if not name.endswith("_p99_us")}
    yield {"what": f"{config.what} in flight"} | timed | rates


@case(
    full=Plan(actors=(1, 4), rounds=_FULL, trips=1000),
    quick=Plan(actors=(1, 4), rounds=_QUICK, trips=300),
)
def awaited(config: Config) -> Iterator[Row]:
    """Awaited execution of a chain in an event loop (asyncio)."""
    below = floor.running(floor.chain(config.actors))
    yield measure(config, f"awaited {config.actors}", below)
