"""Check what is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.report import cells, json_line, machine_line, read_rows, short, size, table

if TYPE_CHECKING:
    from benchmarks.registry import Row

ROWS: list[Row] = [
    {"case": "chain", "actors": 1, "ours_us": 6.0, "floor_us": 4.0, "ratio": 1.5, "rounds": 3},
    {"case": "chain", "actors": 16, "error": "OSError: gone"},
    {"case": "startup", "ours_ms": 300.25, "torch": True, "ray_error": "timed out after 90 s"},
    {"case": "payload", "bytes": 65536, "memcpy_us": 2.0, "memcpy_ratio": 3.0},
]
TABLE = """\
case       size  actors    ours  floor  ratio  others below              ray  also
chain         -       1    6 us   4 us   1.50  -                           -  -
chain         -      16       -      -      -  -                           -  FAILED: OSError: gone
startup       -       -  300 ms      -      -  -                   timed out  torch yes
payload  64 KiB       -       -      -      -  memcpy 2 us (3.00)          -  -
"""


def test_a_row_is_one_line_of_json() -> None:
    line = json_line(ROWS[0])
    assert "\n" not in line
    assert json.loads(line) == ROWS[0]


def test_all_rows_are_one_aligned_table() -> None:
    assert table(ROWS) + "\n" == TABLE


def test_a_peer_that_gave_up_waiting_has_timed_out_too() -> None:
    error = "ended with 1: ray.exceptions.RayChannelTimeoutError: System error"
    assert cells({"case": "chain", "peer_error": error})["ray"] == "timed out"
    assert cells({"case": "chain", "ray_error": "ended with 1: KeyError"})["ray"] == "failed"


def test_numbers_have_three_digits() -> None:
    assert [short(value) for value in (0.01234, 1.0, 12.345, 1234.5)] == [
        "0.0123",
        "1",
        "12.3",
        "1234",
    ]
    assert [size(nbytes) for nbytes in (4, 1024, 768 << 10, 64 << 20)] == [
        "4 B",
        "1 KiB",
        "768 KiB",
        "64 MiB",
    ]


def test_rows_of_an_earlier_run_are_read(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json_line({"machine": True, "cpu": "some"}), *map(json_line, ROWS)]
    path.write_text("\n".join(lines))
    assert read_rows(path) == ROWS


def test_the_machine_is_one_line() -> None:
    assert machine_line({"cpu": "some", "cores": 2}) == "cpu some, cores 2"
