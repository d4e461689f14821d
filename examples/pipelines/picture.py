"""Pictures of pipelines: what every stage does when, losses, and text with its surprises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from digits.plot import GRID_COLOR, TEXT_COLOR, decorate, name_axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from pipelines.lanes import length_s, span
from pipelines.passage import shade

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from pipelines.lanes import Box, Lane
    from pipelines.passage import Line

KINDS = {"F": "#1f5fa8", "B": "#c8591a", "s": "#8a8a8a"}
"""Colours of going forward, going back, and the step, by the first letter of a box's name."""
TURNS = ("#1f5fa8", "#c8591a", "#3c8d5a", "#7a4fa3")
"""Colours of micro-batches that follow each other."""
LOOKS = (("#1f5fa8", 5.0, 0.4), ("#c8591a", 1.4, 1.0))
"""Of lines that lie on each other: colour, width, strength."""
IDLE_COLOR = "#f0f0f0"
LEAST_LABELLED = 0.016
"""Boxes that take less of the picture's width have no room for a label."""
LEAST_COLUMNS = 64
LANE_HEIGHT, LINE_HEIGHT, AROUND = 0.42, 0.2, 0.75
"""In inches: of a stage, of a line of text, and of what is above and below either."""


def save_training(
    path: Path,
    title: str,
    drawn: Mapping[str, Sequence[Lane]],
    losses: Mapping[str, Sequence[float]],
) -> None:
    """Draw a step's timelines, each under its title and all to one scale; below them the losses."""
    heights = [AROUND + LANE_HEIGHT * len(lanes) for lanes in drawn.values()]
    figure = new_figure(title, sum(heights) + 2.9)
    *upper, lower = figure.subplots(len(heights) + 1, height_ratios=(*heights, 2.6))
    until_s = 1.01 * max(map(length_s, drawn.values()))
    for axes, (name, lanes) in zip(upper, drawn.items(), strict=True):
        draw_lanes(axes, lanes, until_s, lambda box: KINDS[box.name[0]])
        name_axes(axes, name)
    for (name, values), (color, width, alpha) in zip(losses.items(), LOOKS, strict=True):
        steps = range(1, len(values) + 1)
        lower.plot(steps, values, color=color, linewidth=width, alpha=alpha, label=name)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(lower, "training loss by step, in nats: the lines lie on each other")
    lower.legend(loc="upper right", frameon=False, labelcolor=TEXT_COLOR)
    decorate(lower)
    figure.savefig(path, dpi=150)


def save_inference(
    path: Path, title: str, name: str, lanes: Sequence[Lane], lines: Sequence[Line]
) -> None:
    """Draw the stages' timeline, and below it what was read in the colours of its surprise."""
    heights = (AROUND + LANE_HEIGHT * len(lanes), AROUND + LINE_HEIGHT * len(lines))
    figure = new_figure(title, sum(heights) + 0.3)
    upper, lower = figure.subplots(2, height_ratios=heights)
    draw_lanes(upper, lanes, length_s(lanes), lambda box: TURNS[int(box.name) % len(TURNS)])
    name_axes(upper, name)
    draw_text(lower, lines)
    name_axes(lower, "unknown text: the redder a character, the less the model expected it")
    figure.savefig(path, dpi=150)


def new_figure(title: str, height: float) -> Figure:
    """Begin a picture."""
    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=TEXT_COLOR)
    return figure


def draw_lanes(
    axes: Axes, lanes: Sequence[Lane], until_s: float, color: Callable[[Box], str]
) -> None:
    """Draw a bar for each stage, with a box for each thing it did, from the first one on."""
    begin_s, _ = span(lanes)
    for row, lane in enumerate(lanes):
        axes.barh(row, until_s * 1e3, height=0.8, color=IDLE_COLOR)
        for box in lane.boxes:
            draw_box(axes, row, (box.begin_s - begin_s) * 1e3, box, color(box))
            if box.length_s > LEAST_LABELLED * until_s:
                middle = ((box.begin_s + box.end_s) / 2 - begin_s) * 1e3
                axes.text(
                    middle, row, box.name, ha="center", va="center", color="white", fontsize=7
                )
    axes.set_yticks(range(len(lanes)), [f"stage {row}" for row in range(1, len(lanes) + 1)])
    axes.invert_yaxis()
    axes.set_xlim(0, until_s * 1e3)
    decorate(axes)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g} ms"))


def draw_box(axes: Axes, row: int, left_ms: float, box: Box, color: str) -> None:
    """Draw one thing that a stage did."""
    width_ms = box.length_s * 1e3
    axes.barh(
        row, width_ms, left=left_ms, height=0.8, color=color, edgecolor="white", linewidth=0.5
    )


def draw_text(axes: Axes, lines: Sequence[Line]) -> None:
    """Write lines, every character on the colour of its surprise."""
    for row, line in enumerate(lines):
        for column, (character, nats) in enumerate(zip(line.text, line.nats, strict=True)):
            square = Rectangle((column, row), 1.02, 1.02, facecolor=shade(nats), linewidth=0)
            axes.add_patch(square)
            axes.text(
                column + 0.5,
                row + 0.55,
                character,
                family="monospace",
                fontsize=8,
                ha="center",
                va="center",
                parse_math=False,
            )
    axes.set_xlim(0, max(LEAST_COLUMNS, *(len(line.text) for line in lines)))
    axes.set_ylim(len(lines), 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(GRID_COLOR)
