"""What `pipeline_inference.py` shows: figures, tables, the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from digits.devices import num_cores
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipelines import lanes
from pipelines.passage import coloured, passage
from pipelines.picture import save_inference

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from pipelines.lanes import Lane
    from pipelines.text import Tokens

Surprises: TypeAlias = list[NDArray[Any]]
"""Of the characters of each micro-batch, in nats."""
NUM_DRAWN = 16
"""Micro-batches in the picture, from the first one on."""


@dataclass(slots=True)
class Figures:
    """One way to read, and how it went."""

    name: str
    read: Callable[[Sequence[Tokens]], Surprises]
    seconds: list[float] = field(default_factory=list)
    found: Surprises = field(default_factory=list)

    def measure(self, batches: Sequence[Tokens]) -> None:
        """Read all of the text once."""
        began = perf_counter()
        self.found = self.read(batches)
        self.seconds.append(perf_counter() - began)

    @property
    def tokens_per_s(self) -> float:
        """The median of the rounds, of which the first does not count."""
        return sum(nats.size for nats in self.found) / median(self.seconds[1:])


def last_round(events: Sequence[dict[str, Any]], count: int) -> list[Lane]:
    """Return what the stages did with the micro-batches of the last round, by their numbers."""
    found = lanes.read(events)
    known = lanes.executions(found)
    numbers = [number for number in known if number > known[-1] - count]
    names = [str(number - numbers[0]) for number in numbers]
    return [lane.of(numbers).named(names) for lane in found]


def show_ways(ways: Sequence[Figures], seen: Sequence[Lane]) -> None:
    """Print how fast each way is, and what to expect of a pipeline."""
    table = Table("", "tokens/s", "ratio", "perplexity")
    for way in ways:
        perplexity = math.exp(np.concatenate(way.found).mean())
        ratio = way.tokens_per_s / ways[-1].tokens_per_s
        table.add_row(way.name, f"{way.tokens_per_s:,.0f}", f"{ratio:.2f}", f"{perplexity:.4f}")
    Console().print(table)
    each_s = [lane.typical_s("") for lane in seen]
    balance, cores = sum(each_s) / max(each_s), num_cores()
    print(
        f"{len(seen)} stages on {cores} cores: at best {min(balance, cores):.2f} times one thread, "
        f"for the slowest stage has {max(each_s) / sum(each_s):.0%} of the work"
    )


def show_stages(seen: Sequence[Lane]) -> None:
    """Print how long each stage works, and how much of the time it waits."""
    table = Table("in the last round", "a micro-batch", "busy", "waiting")
    for number, lane in enumerate(seen, 1):
        idle = lanes.idle([lane], seen)
        each_ms = 1e3 * lane.typical_s("")
        table.add_row(f"stage {number}", f"{each_ms:.2f} ms", f"{1 - idle:.0%}", f"{idle:.0%}")
    Console().print(table)


def draw(
    options: argparse.Namespace, way: Figures, seen: Sequence[Lane], batches: Sequence[Tokens]
) -> None:
    """Show what was read in colours, on a terminal and in the picture."""
    lines = passage(batches, way.found)
    console = Console()
    if console.is_terminal:
        console.print("\nthe redder a character, the less the model expected it", style="dim")
        console.print(coloured(lines))
    began = [lane.first(NUM_DRAWN) for lane in seen]
    save_inference(
        options.out / "pipeline_inference.png",
        f"{options.layers} blocks on {len(seen)} stages, {options.in_flight} micro-batches in "
        f"flight ({options.device}, {num_cores()} cores)",
        f"the first micro-batches of a round of {len(batches)}",
        began,
        lines,
    )
    print(f"written to {options.out}: pipeline_inference.png")
