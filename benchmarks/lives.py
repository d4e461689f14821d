"""The cases of a graph's life: compiling, the first execution, teardown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.registry import Config, Plan, Row, case
from benchmarks.sides import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARTS = ("compile", "first", "teardown")
_MOST_OF_PEERS = 32
"""Nodes: a peer that needs 40 ms for each is not asked for a thousand."""
_MOST_ACTORS_OF_PEERS = 4


@case(
    full=Plan(actors=(2, 4), rounds=3, trips=3, whats=("2", "8", "32", "100", "300", "1000")),
    quick=Plan(actors=(4,), rounds=2, trips=1, whats=("8", "32", "1000")),
)
def compile_nodes(config: Config) -> Iterator[Row]:
    """Compile, first execution and teardown, by nodes (on so many actors, one after the other)."""
    yield from _lives(config, int(config.what))


@case(
    full=Plan(actors=(1, 2, 4, 8, 16, 32), rounds=3, trips=3, whats=("32",)),
    quick=Plan(actors=(1, 16), rounds=2, trips=1, whats=("32",)),
)
def compile_actors(config: Config) -> Iterator[Row]:
    """The same by actors, with 32 nodes."""
    yield from _lives(config, int(config.what))


def _lives(config: Config, nodes: int) -> Iterator[Row]:
    for part in _PARTS:
        row = measure(_alone_if_large(config, nodes), f"{part} {nodes} {config.actors}")
        if part == "compile":
            row["us_per_node"] = round(_us(row) / nodes, 1)
        yield {"what": part, "nodes": nodes, **row}


def _us(row: Row) -> float:
    took = row["ours_us"]
    assert isinstance(took, float)
    return took


def _alone_if_large(config: Config, nodes: int) -> Config:
    large = nodes > _MOST_OF_PEERS or config.actors > _MOST_ACTORS_OF_PEERS
    return replace(config, peer=None) if large else config
