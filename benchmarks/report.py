"""Write measured rows: JSON lines for programs, aligned tables for people."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.registry import Row, Scalar

ABSENT = "-"


def json_line(row: Row) -> str:
    """Return `row` as one line of JSON."""
    return json.dumps(row)


def machine_line(machine: Row) -> str:
    """Return a description of the machine as one line for people."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def tables(rows: Sequence[Row]) -> str:
    """Return one aligned table per case, in the order measured."""
    groups = groupby(rows, key=lambda row: row["case"])
    return "\n\n".join(_table(list(of_case)) for _, of_case in groups)


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([_cell(row.get(name, ABSENT)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _cell(value: Scalar) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
