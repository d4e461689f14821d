"""The picture of several ways to do the same training: the losses, and how long steps take."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from digits.plot import TEXT_COLOR, decorate, name_axes, number_losses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLORS = ("#1f5fa8", "#c8591a", "#3c8d5a", "#7a4fa3")
WIDTHS = (5.0, 3.0, 1.2, 0.8)
"""Of the lines of losses, which lie on each other."""


def save_ways(
    path: Path,
    title: str,
    losses: Mapping[str, Sequence[float]],
    step_ms: Mapping[str, Sequence[float]],
) -> None:
    """Draw each way's loss by step, and below it the times of its blocks and their median."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, height_ratios=(3, 2))
    for (name, values), color, width in zip(losses.items(), COLORS, WIDTHS, strict=False):
        upper.semilogy(range(1, len(values) + 1), values, color=color, linewidth=width, label=name)
    number_losses(upper, np.concatenate(list(losses.values())))
    name_axes(upper, "training loss in nats: the lines lie on each other")
    upper.xaxis.set_major_locator(MaxNLocator(integer=True))
    upper.set_xlabel("step", color=TEXT_COLOR)
    upper.legend(loc="best", frameon=False, labelcolor=TEXT_COLOR)
    for place, values in enumerate(step_ms.values()):
        middle = median(values)
        lower.barh(place, middle, color=COLORS[place], alpha=0.35, height=0.6)
        lower.plot(values, [place] * len(values), "o", color=COLORS[place], markersize=3)
        lower.annotate(
            f" {middle:.1f} ms", (max(*values, middle), place), va="center", color=TEXT_COLOR
        )
    lower.set_yticks(range(len(step_ms)), list(step_ms))
    lower.invert_yaxis()
    lower.set_xlim(0, 1.15 * max(map(max, step_ms.values())))
    lower.xaxis.set_major_formatter(StrMethodFormatter("{x:g} ms"))
    name_axes(lower, "time of a step: each block (dots), and their median")
    for axes in (upper, lower):
        decorate(axes)
    lower.grid(visible=False, axis="y")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=TEXT_COLOR)
    figure.savefig(path, dpi=150)
