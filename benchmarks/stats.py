"""Reduce measured times to the few figures a row shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONG_NS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What one timed block of trips came to, in nanoseconds."""

    p50_ns: float
    p99_ns: float
    n: int
    num_long: int = 0
    """Trips of over a millisecond: longer than small ones work, so they waited for a turn."""


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least `percent` of all values do not exceed."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[rank - 1]


def summarize(times_ns: Sequence[int]) -> Block:
    """Reduce one block's trips to its median, its 99th percentile, and how many are long."""
    return Block(
        p50_ns=median(times_ns),
        p99_ns=percentile(times_ns, 99),
        n=len(times_ns),
        num_long=sum(time > _LONG_NS for time in times_ns),
    )


def paired_ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round, so that a slow spell of the machine falls on both sides.

    Raises:
        ValueError: if the two sides do not have the same rounds.
    """
    return [a / b for a, b in zip(above, below, strict=True)]


def paired_differences(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Subtract round by round; see `paired_ratios`."""
    return [a - b for a, b in zip(above, below, strict=True)]
