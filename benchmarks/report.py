"""Write measured rows: JSON lines for programs, one aligned table for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rounds import BELOW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.registry import Row, Scalar

ABSENT = "-"
UNITS = ("us", "ms", "mib", "percent", "instructions")
_TEXT = {"us": "us", "ms": "ms", "mib": "MiB", "percent": "%", "instructions": "instructions"}
_PEERS = ("ray",)
_COLUMNS = (
    "case", "what", "size", "actors", "ours", "p99", "floor", "ratio", "lo", "hi",
    "others below", "ray", "ray ratio", "also",
)  # fmt: skip
_LEFT = frozenset({"case", "what", "others below", "also"})
SIZES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
"""Bytes by unit, largest first."""


class Figure(NamedTuple):
    """A value with its unit."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{short(self.value)} {_TEXT[self.unit]}"


def figure(row: Row, side: str) -> Figure | None:
    """Return the figure of a side, in whatever unit the row has it."""
    for unit in UNITS:
        value = row.get(f"{side}_{unit}")
        if isinstance(value, (int, float)):
            return Figure(float(value), unit)
    return None


def short(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size(nbytes: int) -> str:
    """Return a number of bytes in the largest unit that it is a multiple of."""
    unit, times = next((unit, times) for unit, times in SIZES.items() if nbytes % times == 0)
    return f"{nbytes // times} {unit}"


def json_line(row: Row) -> str:
    """Return `row` as one line of JSON."""
    return json.dumps(row)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines, without those that describe machines.

    Raises:
        OSError: It cannot be read.
        ValueError: A line is no JSON object; says which.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            message = f"{path}, line {number} is no row of an earlier run: {line[:60]!r}"
            raise ValueError(message) from error
    return [row for row in rows if "case" in row]


def machine_line(machine: Row) -> str:
    """Return a description of the machine as one line for people."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def table(rows: Sequence[Row]) -> str:
    """Return all rows as one aligned table."""
    lines = [dict(zip(_COLUMNS, _COLUMNS, strict=True)), *map(cells, rows)]
    used = [name for name in _COLUMNS if any(line.get(name) for line in lines[1:])]
    widths = {name: max(len(line.get(name) or ABSENT) for line in lines) for name in used}
    return "\n".join(_aligned(line, widths) for line in lines)


def cells(row: Row) -> dict[str, str]:
    """Return a row as texts, by column."""
    nbytes, ratio = row.get("bytes"), row.get("ratio")
    line = {
        "case": str(row["case"]),
        "what": str(row.get("what", "")),
        "size": size(nbytes) if isinstance(nbytes, int) else "",
        "actors": str(row.get("actors", "")),
        "ours": _figure(row, "ours"),
        "p99": _figure(row, "ours_p99"),
        "floor": _figure(row, "floor"),
        "ratio": _number(ratio),
        "lo": _number(row.get("ratio_lo")),
        "hi": _number(row.get("ratio_hi")),
        "others below": ", ".join(_others_below(row)),
    }
    for peer in _PEERS:
        failure = row.get(f"{peer}_error") or row.get("peer_error")
        line[peer] = _failure(str(failure)) if failure else _figure(row, peer)
        line[f"{peer} ratio"] = _number(row.get(f"{peer}_ratio"))
    return line | {"also": ", ".join(_rest(row))}


def _others_below(row: Row) -> Iterator[str]:
    """Yield the limits other than the floor, with ours over each."""
    for side, ratio in BELOW.items():
        found = figure(row, side)
        if side != "floor" and found is not None:
            yield f"{side} {found} ({_number(row.get(ratio))})"


def _rest(row: Row) -> Iterator[str]:
    """Yield what has no column of its own."""
    if "error" in row:
        yield f"FAILED: {row['error']}"
    taken = {"case", "what", "bytes", "actors", "rounds", "n", "error", "peer_error"}
    sides = ("ours", "floor", *BELOW, *_PEERS)
    taken |= {f"{side}{p99}_{unit}" for side in sides for p99 in ("", "_p99") for unit in UNITS}
    ratios = (*BELOW.values(), *(f"{peer}_ratio" for peer in _PEERS))
    taken |= {f"{ratio}{end}" for ratio in ratios for end in ("", "_lo", "_hi")}
    taken |= {f"{peer}_error" for peer in _PEERS}
    for name, value in row.items():
        if name not in taken:
            yield f"{name} {_cell(value)}"


def _failure(text: str) -> str:
    return "timed out" if "timed out" in text or "TimeoutError" in text else "failed"


def _figure(row: Row, side: str) -> str:
    found = figure(row, side)
    return "" if found is None else str(found)


def _number(value: Scalar | None) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else ""


def _cell(value: Scalar) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return short(value) if isinstance(value, float) else str(value)


def _aligned(line: dict[str, str], widths: dict[str, int]) -> str:
    texts = ((name, line.get(name) or ABSENT, width) for name, width in widths.items())
    return "  ".join(
        text.ljust(width) if name in _LEFT else text.rjust(width) for name, text, width in texts
    ).rstrip()
