"""What the run found, as tables, text and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from digits.loops import IN_FLIGHT

if TYPE_CHECKING:
    from pathlib import Path

    from digits.checks import Check
    from digits.options import Options
    from digits.timing import Comparison, LoopFigures

WIDTH = 80
NOTES = (
    ("step", "a training step, from the end of the one before: the median"),
    ("compute", "in the replicas: the slowest backward, then the slowest step"),
    ("outside", "step - compute, for the median step and its neighbours"),
    ("allreduce", "as torch.distributed's last rank to arrive sees the call"),
    ("overhead", "outside - allreduce: the executor, and waiting"),
    ("ratio", "to torch.distributed; the goal for the compiled graph is 1.10"),
    ("compiled graph", f"with {IN_FLIGHT} steps under way: no rank waits for the driver"),
    ("torch.distributed", "has no driver: the ranks draw the batches from the seed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the run found."""

    options: Options
    num_steps: int
    training_s: float
    samples_per_s: float
    test_accuracy: float
    parameter_distance: float
    comparisons: tuple[Comparison, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Tell whether every check holds."""
        return all(check.holds for check in self.checks)

    def __rich__(self) -> Group:
        parts: list[RenderableType] = ["", *summary_table(self)]
        for comparison in self.comparisons:
            parts += comparison_table(comparison)
        parts += [notes_table(), "", *map(check_line, self.checks)]
        return Group(*parts)


def summary_table(report: Report) -> tuple[Text, Table]:
    """Lay out what training reached."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_row("test accuracy", f"{report.test_accuracy:.4f}")
    table.add_row("training", f"{report.num_steps} steps in {report.training_s:.2f} s")
    table.add_row("samples/s", f"{report.samples_per_s:,.0f}")
    return heading(report.options.title), table


def comparison_table(comparison: Comparison) -> tuple[Text, Table]:
    """Lay out the loops, one a row."""
    title = f"A step at batch size {comparison.batch_size}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("step", "compute", "outside", "allreduce", "overhead", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for figures in comparison.loops:
        table.add_row(*figures_row(figures))
    return heading(f"{title}, in ms ({comparison.num_timed_steps} of each loop, in turns)"), table


def figures_row(figures: LoopFigures) -> tuple[str, ...]:
    """Format one loop's figures."""
    return (
        figures.name,
        milliseconds(figures.step_s),
        milliseconds(figures.compute_s),
        milliseconds(figures.outside_s),
        milliseconds(figures.allreduce_s) if figures.allreduce_s else "-",
        milliseconds(figures.overhead_s),
        f"{figures.ratio_to_raw:.2f}",
    )


def heading(text: str) -> Text:
    """Make a title that may be wider than its table."""
    return Text(text, style="bold")


def milliseconds(seconds: float) -> str:
    """Format a time."""
    return f"{seconds * 1e3:.3f}"


def notes_table() -> Table:
    """Say what the columns mean."""
    table = Table(box=None, show_header=False, style="dim", padding=(0, 1), pad_edge=False)
    for name, meaning in NOTES:
        table.add_row(name, meaning)
    return table


def check_line(check: Check) -> Text:
    """Say whether a check holds."""
    if check.holds:
        return Text(check.text)
    return Text(f"FAILED: {check.text}", style="bold red")


def write_report(report: Report, folder: Path) -> None:
    """Write the report as text and as JSON."""
    with (folder / "report.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=WIDTH).print(report)
    text = json.dumps(asdict(report) | {"ok": report.ok}, indent=2, default=str)
    (folder / "report.json").write_text(f"{text}\n", encoding="utf-8")
