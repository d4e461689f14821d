"""Write a dated report: the table and the verdicts as Markdown, ratios and curves as pictures."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.report import figure, machine_line, size, table
from benchmarks.targets import verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.registry import Row

_OURS, _PEER, _LIMIT = "#2a78b5", "#d9822b", "#666666"
_SIDES = (
    ("ratio", _OURS, "ours / floor (shorter is better)"),
    ("ray_ratio", _PEER, "Ray / ours (longer is better)"),
)
_ROW_INCHES, _WIDTH_INCHES = 0.24, 9.0


def write(folder: Path, machine: Row, rows: Sequence[Row]) -> Path:
    """Write the report of one run into `folder`; returns the path of its text.

    Raises:
        ImportError: matplotlib is not installed (extra `examples`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = str(machine["date"])[:10]
    pictures = [
        (f"{stem}-ratios.png", "Ours over the floor, the peer over ours", _draw_ratios),
        (f"{stem}-scaling.png", "Cost of an execution, or of compiling, by size", _draw_curves),
    ]
    parts = [f"# Benchmarks, {stem}", machine_line(machine)]
    for name, title, draw in pictures:
        if draw(folder / name, rows):
            parts.append(f"![{title}]({name})")
    parts += ["## What was to be reached", targets_text(rows)]
    parts += ["## All figures", f"```text\n{table(rows)}\n```"]
    path = folder / f"{stem}.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def targets_text(rows: Sequence[Row]) -> str:
    """Return which targets were reached, as a Markdown table."""
    lines = ["| target | measured | reached |", "|---|--:|---|"]
    for target, row, met in verdicts(rows):
        where = name_of(row)
        lines.append(
            f"| {target} ({where}) | {row[target.figure]} | {'yes' if met else '**no**'} |"
        )
    return "\n".join(lines)


def name_of(row: Row) -> str:
    """Return a short name of what a row measured."""
    nbytes, actors = row.get("bytes"), row.get("actors")
    parts = [str(row["case"]), str(row.get("what", ""))]
    parts += [size(nbytes)] if isinstance(nbytes, int) else []
    parts += [f"{row['nodes']} nodes"] if "nodes" in row else []
    parts += [f"x{actors}"] if actors != 1 else []
    parts += [f"torch {row['torch']}"] if isinstance(row.get("torch"), str) else []
    return " ".join(filter(None, parts))


def _draw_ratios(path: Path, rows: Sequence[Row]) -> bool:
    """Draw a line per row: ours over the floor to one side, the peer over ours to the other.

    A side of which nothing was measured is left out.
    """
    drawn = [row for row in rows if "ratio" in row or "ray_ratio" in row]
    if not drawn:
        return False
    plot = _matplotlib()
    height = 1.2 + _ROW_INCHES * len(drawn)
    sides = [side for side in _SIDES if any(side[0] in row for row in drawn)]
    chart, (panels,) = plot.subplots(
        *(1, len(sides)),
        figsize=(_WIDTH_INCHES, height),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    places = list(range(len(drawn)))
    for axes, (ratio, color, title) in zip(panels, sides, strict=True):
        known = [(place, _range(row, ratio)) for place, row in enumerate(drawn) if ratio in row]
        values = [middle for _, (_, middle, _) in known]
        errors = [
            [middle - low for _, (low, middle, _) in known],
            [high - middle for _, (_, middle, high) in known],
        ]
        at = [place for place, _ in known]
        axes.barh(at, values, color=color, height=0.7)
        axes.errorbar(values, at, xerr=errors, fmt="none", ecolor=_LIMIT, elinewidth=0.8)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_title(title, fontsize=9)
        axes.grid(axis="x", which="both", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7)
    panels[0].set_yticks(places, [name_of(row) for row in drawn])
    panels[0].set_ylim(len(drawn) - 0.4, -0.6)
    chart.savefig(path, dpi=120)
    plot.close(chart)
    return True


def _range(row: Row, ratio: str) -> tuple[float, float, float]:
    middle = row[ratio]
    low, high = row.get(f"{ratio}_lo", middle), row.get(f"{ratio}_hi", middle)
    assert isinstance(low, (int, float))
    assert isinstance(middle, (int, float))
    assert isinstance(high, (int, float))
    return low, middle, high


def _draw_curves(path: Path, rows: Sequence[Row]) -> bool:
    """Draw a small chart per curve of the case `scaling`, both axes logarithmic."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    tails: dict[str, float] = {}
    for row in rows:
        what, at = str(row.get("what")), row.get("size")
        cost, tail = figure(row, "ours"), row.get("tail")
        if row["case"] == "scaling" and isinstance(at, int) and cost:
            curves[what].append((at, cost.value))
        elif isinstance(tail, (int, float)):
            tails[what] = tail
    if not curves:
        return False
    plot = _matplotlib()
    across = 3
    down = math.ceil(len(curves) / across)
    chart, grid = plot.subplots(
        down, across, figsize=(_WIDTH_INCHES, 2.6 * down), layout="constrained", squeeze=False
    )
    for axes, (what, points) in zip(grid.flat, curves.items(), strict=False):
        sizes, costs = zip(*points, strict=True)
        axes.loglog(sizes, costs, marker="o", markersize=4, color=_OURS)
        axes.set_title(f"{what}: exponent {tails.get(what, math.nan):.2f}", fontsize=8)
        axes.set_ylabel("us", fontsize=8)
        _label(axes, sizes, costs, in_bytes=what.startswith("bytes"))
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    chart.savefig(path, dpi=120)
    plot.close(chart)
    return True


def _label(axes: Any, sizes: Sequence[int], costs: Sequence[float], *, in_bytes: bool) -> None:
    """Have ticks where the sizes are, and plain numbers; flat curves are to look flat."""
    texts = [size(one) if in_bytes else f"{one}" for one in sizes]
    axes.set_xticks(sizes, texts, rotation=30 if in_bytes else 0)
    axes.set_xticks([], minor=True)
    axes.set_ylim(min(costs) / 2, max(costs) * 2)
    axes.yaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.tick_params(labelsize=7)


def _ticker() -> Any:
    import matplotlib.ticker as mpl_ticker  # noqa: PLC0415  only reports need it

    return mpl_ticker


def _matplotlib() -> Any:
    """Return pyplot, drawing into files."""
    import matplotlib as mpl  # noqa: PLC0415  only reports need it

    mpl.use("agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    return plt
