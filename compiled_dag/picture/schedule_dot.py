"""A schedule as DOT text: a frame per actor, its operations in order, what waits for what."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from compiled_dag.picture.colours import FILL, colours_of
from compiled_dag.picture.dot import quoted, render
from compiled_dag.schedule import Schedule

if TYPE_CHECKING:
    from compiled_dag.ir import Graph
    from compiled_dag.program import Program
    from compiled_dag.schedule import Op

_FILE: Final = "compiled_graph_schedule"

_LETTERS: Final = {"READ": "R", "COMPUTE": "C", "WRITE": "W", "START": "S", "WAIT": "J"}
_LEGEND: Final = (
    "node, name, operation\n"
    "R read, C compute, W write, S start and J join a collective\n"
    "dashed: next on the same actor; solid: a value travels; dotted: ranks of a collective"
)


def draw_schedule(graph: Graph, program: Program) -> None:
    """Write ``compiled_graph_schedule.png`` and its text to the working directory.

    Raises:
        ImportError: Graphviz is missing.
    """
    render(schedule_dot(Schedule.of(program, graph)), _FILE, "png")


def schedule_dot(schedule: Schedule) -> str:
    """Return the picture's text; operations are called by actor and position (``1.4``)."""
    colours = colours_of(tuple(schedule))
    names = dict(schedule.names)
    lines = [
        "digraph compiled_graph_schedule {",
        "  node [style=filled, shape=box, fontname=monospace]",
        f"  label={quoted(_LEGEND)}",
    ]
    for lane, (label, ops) in enumerate(schedule.lanes):
        lines += [f"  subgraph cluster_{lane} {{", f"    label={quoted(label)}"]
        for place, op in enumerate(ops):
            text = quoted(f"[{op.node}] {names[op.node]} {_LETTERS[op.kind]}")
            fill = quoted(colours.get(label, FILL["input"]))
            lines.append(f"    {_id(lane, place)} [label={text}, fillcolor={fill}]")
        lines += [
            f"    {_id(lane, place)} -> {_id(lane, place + 1)} [style=dashed]"
            for place in range(len(ops) - 1)
        ]
        lines.append("  }")
    return "\n".join([*lines, *_values(schedule), *_ranks(schedule), "}", ""])


def _id(lane: int, place: int) -> str:
    return quoted(f"{lane}.{place}")


def _values(schedule: Schedule) -> list[str]:
    """Return an edge from every write to each read of it."""
    writes = {op.channel: _id(*at) for at, op in _places(schedule) if op.kind == "WRITE"}
    return [
        f'  {writes[op.channel]} -> {_id(*at)} [label="channel {op.channel}"]'
        for at, op in _places(schedule)
        if op.kind == "READ" and op.channel in writes
    ]


def _ranks(schedule: Schedule) -> list[str]:
    """Return an edge between neighbouring ranks of every collective."""
    starts: dict[int | None, list[str]] = {}
    for at, op in _places(schedule):
        if op.kind == "START":
            starts.setdefault(op.channel, []).append(_id(*at))
    return [
        f"  {one} -> {other} [style=dotted, dir=none, constraint=false]"
        for ranks in starts.values()
        for one, other in pairwise(ranks)
    ]


def _places(schedule: Schedule) -> list[tuple[tuple[int, int], Op]]:
    return [
        ((lane, place), op)
        for lane, (_, ops) in enumerate(schedule.lanes)
        for place, op in enumerate(ops)
    ]
