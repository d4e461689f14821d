"""Fit how a cost grows with what it is plotted against. Pure arithmetic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL = 3
WORSE_THAN_LINEAR = 1.15
"""Exponents from here on are not measurement noise any more."""


class Growth(NamedTuple):
    """How a cost grows."""

    exponent: float
    """Slope of log cost over log size, all points: 0 constant, 1 linear, 2 quadratic."""
    tail: float
    """The same of the last points, where fixed costs no longer hide the growth."""
    fixed: float
    """Cost of nothing, by a straight line through all points (least relative error)."""
    each: float
    """Cost of one more, by that line."""


def growth(sizes: Sequence[float], costs: Sequence[float]) -> Growth:
    """Fit the costs of growing sizes.

    Raises:
        ValueError: Fewer than two points, or one that is not positive.
    """
    logs = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    exponent, _ = _line(*logs)
    tail, _ = _line(logs[0][-_TAIL:], logs[1][-_TAIL:])
    # Weighted: else the largest point alone would decide.
    each, fixed = _line(sizes, costs, [1 / cost**2 for cost in costs])
    return Growth(exponent, tail, fixed, each)


def _line(
    xs: Sequence[float], ys: Sequence[float], weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """Return slope and intercept of the line with the least squares."""
    if len(xs) < 2:
        raise ValueError(f"a line needs two points, there is {len(xs)}")
    weights = weights or [1.0] * len(xs)
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    points = list(zip(weights, xs, ys, strict=True))
    over = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in points)
    slope = over / sum(w * (x - mean_x) ** 2 for w, x, _ in points)
    return slope, mean_y - slope * mean_x
