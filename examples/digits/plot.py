"""The picture of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
    ScalarFormatter,
    StrMethodFormatter,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LOSS_COLOR = "#1f5fa8"
ACCURACY_COLOR = "#c8591a"
GRID_COLOR = "#e3e3e3"
TEXT_COLOR = "#444444"
MOST_SMOOTHED = 23
SMOOTHED_SHARE = 0.1
"""Steps that the trend at one of them is of: at most so many, and this part of all."""
MOST_TICKS = 10
WIDE = 10
"""Values that differ by this factor are written with as many decimals as each needs."""
MIN_LOSS = 1e-8
"""A loss of 0 has no place on a logarithmic axis."""


def save_plot(path: Path, title: str, losses: Sequence[float], accuracies: Sequence[float]) -> None:
    """Draw the loss of each step and, below it, the test accuracy after each epoch."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    num_epochs = len(accuracies)
    epochs = np.arange(1, len(losses) + 1) * num_epochs / len(losses)
    draw_losses(upper, epochs, np.maximum(losses, MIN_LOSS))
    draw_accuracies(lower, accuracies)
    for axes in (upper, lower):
        decorate(axes)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=TEXT_COLOR)
    lower.set_xlabel("epoch", color=TEXT_COLOR)
    lower.set_xlim(0, num_epochs * 1.02)
    lower.set_xticks(epoch_ticks(num_epochs))
    figure.savefig(path, dpi=150)


def draw_losses(axes: Axes, epochs: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
    """Draw the losses lightly, and their trend over them."""
    axes.semilogy(epochs, losses, color=LOSS_COLOR, alpha=0.3, linewidth=0.8, label="each step")
    axes.semilogy(epochs, smooth(losses), color=LOSS_COLOR, linewidth=2, label="smoothed")
    axes.set_title("training loss in nats", loc="left", color=LOSS_COLOR, fontsize="medium")
    number_losses(axes, losses)
    axes.legend(loc="upper right", frameon=False, labelcolor=TEXT_COLOR)


def number_losses(axes: Axes, losses: NDArray[np.float64]) -> None:
    """Have plain numbers at a logarithmic axis: alike where losses are, else as short as may be."""
    alike = losses.max() < WIDE * losses.min()
    formatter = ScalarFormatter(useOffset=False) if alike else StrMethodFormatter("{x:g}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=MOST_TICKS))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_locator(NullLocator())


def draw_accuracies(axes: Axes, accuracies: Sequence[float]) -> None:
    """Draw the accuracies, one point an epoch, and write the last one beside its point."""
    epochs = range(1, len(accuracies) + 1)
    axes.plot(
        epochs, accuracies, "o-", color=ACCURACY_COLOR, markersize=4, linewidth=2, clip_on=False
    )
    axes.set_title("test accuracy", loc="left", color=ACCURACY_COLOR, fontsize="medium")
    axes.annotate(
        f"{accuracies[-1]:.1%}",
        (len(accuracies), accuracies[-1]),
        xytext=(0, -8),
        textcoords="offset points",
        horizontalalignment="right",
        verticalalignment="top",
        color=ACCURACY_COLOR,
        fontweight="bold",
    )
    axes.set_ylim(top=1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def name_axes(axes: Axes, name: str) -> None:
    """Write a line above a part of the picture."""
    axes.set_title(name, loc="left", fontsize="medium", color=TEXT_COLOR)


def decorate(axes: Axes) -> None:
    """Leave a light grid, and the line the curves stand on."""
    axes.grid(visible=True, color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID_COLOR)
    axes.tick_params(which="both", length=0, colors=TEXT_COLOR)


def epoch_ticks(num_epochs: int) -> list[int]:
    """Return round numbers of epochs from 0, and the last epoch, none of them close together."""
    step = next(
        step
        for power in range(len(str(num_epochs)) + 1)
        for step in (10**power, 2 * 10**power, 5 * 10**power)
        if num_epochs <= MOST_TICKS * step
    )
    return [*range(0, num_epochs - step // 2, step), num_epochs]


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the geometric mean of each value and its neighbours."""
    window = np.ones(min(MOST_SMOOTHED, int(len(values) * SMOOTHED_SHARE) | 1))
    counts = np.convolve(np.ones(len(values)), window, mode="same")
    smoothed: NDArray[np.float64] = np.exp(np.convolve(np.log(values), window, "same") / counts)
    return smoothed
