"""Check what is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.report import json_line, machine_line, tables

if TYPE_CHECKING:
    from benchmarks.registry import Row

ROWS: list[Row] = [
    {"case": "chain", "actors": 1, "ratio": 1.5},
    {"case": "chain", "actors": 16, "error": "TimeoutError: timed out"},
    {"case": "startup", "torch": True},
]


def test_a_row_is_one_line_of_json() -> None:
    line = json_line(ROWS[0])
    assert "\n" not in line
    assert json.loads(line) == ROWS[0]


def test_tables_are_aligned_one_per_case() -> None:
    assert tables(ROWS).splitlines() == [
        " case  actors  ratio                    error",
        "chain       1   1.50                        -",
        "chain      16      -  TimeoutError: timed out",
        "",
        "   case  torch",
        "startup    yes",
    ]


def test_no_rows_are_no_table() -> None:
    assert tables([]) == ""


def test_machine_line() -> None:
    assert machine_line({"cpu": "X", "cores": 2}) == "cpu X, cores 2"
