"""The picture of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LOSS_COLOR = "#1f5fa8"
ACCURACY_COLOR = "#c8591a"
GRID_COLOR = "#e3e3e3"
SMOOTH_STEPS = 23
MIN_LOSS = 1e-8
"""A loss of 0 has no place on a logarithmic axis."""


def save_plot(path: Path, title: str, losses: Sequence[float], accuracies: Sequence[float]) -> None:
    """Draw the loss of each step and the test accuracy after each epoch."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.subplots()
    right = left.twinx()
    epochs = np.arange(1, len(losses) + 1) * len(accuracies) / len(losses)
    draw_losses(left, epochs, np.maximum(losses, MIN_LOSS))
    draw_accuracies(right, accuracies)
    left.set_title(title, loc="left", fontweight="bold", pad=12)
    left.set_xlabel("epoch")
    left.set_xlim(0, len(accuracies) * 1.02)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = [*left.get_lines(), *right.get_lines()]
    right.legend(handles=lines, loc="center right", frameon=False)
    figure.savefig(path, dpi=150)


def draw_losses(axes: Axes, epochs: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
    """Draw the losses lightly, and their trend over them."""
    axes.semilogy(epochs, losses, color=LOSS_COLOR, alpha=0.25, linewidth=0.8, label="loss, step")
    axes.semilogy(epochs, smooth(losses), color=LOSS_COLOR, linewidth=1.8, label="loss, smoothed")
    axes.set_ylabel("training loss", color=LOSS_COLOR)
    axes.tick_params(axis="y", colors=LOSS_COLOR, which="both")
    axes.grid(visible=True, color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["top"].set_visible(False)


def draw_accuracies(axes: Axes, accuracies: Sequence[float]) -> None:
    """Draw the accuracies, one point an epoch."""
    epochs = range(1, len(accuracies) + 1)
    axes.plot(epochs, accuracies, "o-", color=ACCURACY_COLOR, markersize=4, label="test accuracy")
    axes.set_ylim(top=1.0)
    axes.set_ylabel("test accuracy", color=ACCURACY_COLOR)
    axes.tick_params(axis="y", colors=ACCURACY_COLOR)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.spines["top"].set_visible(False)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the geometric mean of each value and its neighbours."""
    window = np.ones(min(SMOOTH_STEPS, len(values)))
    counts = np.convolve(np.ones(len(values)), window, mode="same")
    smoothed: NDArray[np.float64] = np.exp(np.convolve(np.log(values), window, "same") / counts)
    return smoothed
