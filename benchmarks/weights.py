"""The cases of what a graph costs while nothing happens: memory, and processor time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.fresh import beside_peer
from benchmarks.registry import Config, Plan, Row, case

if TYPE_CHECKING:
    from collections.abc import Iterator


@case(full=Plan(actors=(4,), rounds=1), quick=Plan(actors=(4,), rounds=1), limit_s=300.0)
def memory(config: Config) -> Iterator[Row]:
    """Memory (PSS) of the driver with idle actors, and of a chain of them that is compiled."""
    for what, load in (("driver and idle actors", "memory"), ("compiled chain", "chain")):
        yield {"what": what, **beside_peer(config, load, config.actors, "ours_mib")}


@case(full=Plan(actors=(1, 4), rounds=1), quick=Plan(actors=(4,), rounds=1), limit_s=300.0)
def idle(config: Config) -> Iterator[Row]:
    """Processor time of a compiled chain that has nothing to do, in percent of one core."""
    row = beside_peer(config, "idle", config.actors, "ours_percent")
    yield {"what": "compiled chain", **row}
