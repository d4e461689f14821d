"""What `pipeline_training.py` shows: figures, tables, the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from digits.devices import num_cores
from rich.console import Console
from rich.table import Table

from pipelines import lanes
from pipelines.order import Task, ideal, is_possible
from pipelines.picture import save_training

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.lanes import Lane
    from pipelines.text import Tokens


class Way(Protocol):
    """One way to train."""

    def train(self, batches: Sequence[Tokens]) -> list[float]:
        """Train on batches; return the losses."""
        ...

    def parameters(self) -> NDArray[Any]:
        """Return all parameters, layer by layer."""
        ...


@dataclass(slots=True)
class Figures:
    """What one way of training gave."""

    name: str
    way: Way
    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)

    def train(self, batches: Sequence[Tokens]) -> None:
        """Train on a block of batches."""
        began = perf_counter()
        self.losses += self.way.train(batches)
        self.step_s.append((perf_counter() - began) / len(batches))

    @property
    def step_ms(self) -> float:
        """The time of a step: the median of the blocks, of which the first does not count."""
        return 1e3 * median(self.step_s[1:])


def timelines(
    events: Sequence[dict[str, Any]], ordered: Sequence[Sequence[Task]]
) -> tuple[list[Lane], list[Lane]]:
    """Return what the stages did in a step, and in how long they could have if all went at once.

    That is, if nothing but the methods took time, and each took what it took in the middle.
    """
    names = [[*map(str, tasks), "step"] for tasks in ordered]
    typical = lanes.typical(lanes.read(events))
    seen = [lane.named(of_lane) for lane, of_lane in zip(typical, names, strict=True)]
    assert is_possible(seen), "the trace has a task that began before the one it needs had ended"
    lengths_s = [{kind: lane.typical_s(kind) for kind in ("F", "B", "step")} for lane in seen]
    last_s = max(of_stage["step"] for of_stage in lengths_s)
    return seen, ideal(ordered, lambda stage, task: lengths_s[stage][task.kind], last_s)


def show_stages(
    held: Sequence[tuple[int, int]], ordered: Sequence[Sequence[Task]], seen: Sequence[Lane]
) -> None:
    """Print what each stage has and does."""
    table = Table("", "parameters", "micro-batches held", "forward", "back", "idle")
    rows = zip(held, seen, strict=True)
    for number, ((num_parameters, most_held), lane) in enumerate(rows, 1):
        table.add_row(
            f"stage {number}",
            f"{num_parameters:,}",
            f"at most {most_held} of {len(ordered[0]) // 2}",
            f"{1e3 * lane.typical_s('F'):.2f} ms",
            f"{1e3 * lane.typical_s('B'):.2f} ms",
            f"{lanes.idle([lane], seen):.0%}",
        )
    Console().print(table)


def show_ways(ways: Sequence[Figures], seen: Sequence[Lane], planned: Sequence[Lane]) -> None:
    """Print how long steps take, and what to expect."""
    table = Table("", "step", "last loss")
    for figures in ways:
        table.add_row(figures.name, f"{figures.step_ms:.1f} ms", f"{figures.losses[-1]:.5f}")
    Console().print(table)
    of_seen, of_planned = lanes.idle(seen, seen), lanes.idle(planned, planned)
    print(
        f"idle: {of_seen:.0%} of the stages' time in the step drawn, {of_planned:.0%} by the order"
    )
    stages, cores = len(seen), num_cores()
    best = min(cores, stages * (1 - of_planned))
    print(f"{stages} stages on {cores} cores: at best {best:.2f} times one process with one thread")


def draw(
    options: argparse.Namespace,
    ways: Sequence[Figures],
    seen: Sequence[Lane],
    planned: Sequence[Lane],
) -> None:
    """Draw the step that was seen, the one that was planned, and the losses."""
    seen_ms, planned_ms = (1e3 * lanes.length_s(drawn) for drawn in (seen, planned))
    save_training(
        options.out / "pipeline_training.png",
        f"{options.schedule} on {options.stages} stages, {options.micro_batches} micro-batches "
        f"({options.device}, {num_cores()} cores)",
        {
            f"a step as it went: {seen_ms:.1f} ms (F forward, B back, grey: the optimizer)": seen,
            f"the same order and methods, if nothing else took time: {planned_ms:.1f} ms": planned,
        },
        {figures.name: figures.losses for figures in ways},
    )
    print(f"written to {options.out}: pipeline_training.png, program.txt")
