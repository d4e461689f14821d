"""Measure the chosen cases: `python -m benchmarks [case ...]`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from string import ascii_letters
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, TextIO

from benchmarks import machine, peers, registry
from benchmarks.deadline import deadline
from benchmarks.report import SIZES, json_line, machine_line, read_rows, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.registry import Case, Config, Plan, Row

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    registry.load()
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _say(sys.stdout, _listing())
        return 0
    if options.peer != "none":
        try:
            peers.python()
        except FileNotFoundError as error:
            parser.error(f"--peer {options.peer}: {error}")
    try:
        plans = _plans(options)
    except ValueError as error:
        parser.error(str(error))
    return _measure(options, plans)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("cases", nargs="*", metavar="case", type=_case, help="what to measure (default: all)")
    add("--actors", nargs="+", type=_count, metavar="N", help="actor counts, one row each")
    add("--what", nargs="+", default=[], metavar="PART", help="parts of a case: `torch in`, `echo`")
    add("--bytes", nargs="+", type=_size, metavar="N", help="sizes: 4, 64KiB, 1MiB, one row each")
    add("--rounds", type=_count, metavar="R", help="rounds of A B A B")
    add("--peer", choices=["none", *registry.PEERS], default="none", help="measure it too")
    add("--json", type=_file, metavar="FILE", help="write machine and rows there as JSON lines")
    add("--report", type=_folder, metavar="DIR", help="write a dated report with plots there")
    add(
        "--with",
        dest="earlier",
        nargs="+",
        type=_earlier,
        default=[],
        metavar="FILE",
        help="put the rows of earlier runs (--json, or standard output) first",
    )
    add("--quick", action="store_true", help="few short rounds: shows that it works")
    add("--list", action="store_true", help="list the cases and end")
    return parser


def _case(name: str) -> Case:
    try:
        return registry.CASES[name]
    except KeyError:
        known = ", ".join(registry.CASES)
        message = f"there is no case {name!r}; the cases are {known}"
        raise argparse.ArgumentTypeError(message) from None


def _file(text: str) -> Path:
    """Read a path to write to: what cannot be written is told before an hour of measuring."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {text}: {error.strerror}") from None
    return path


def _folder(text: str) -> Path:
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {text}: {error.strerror}") from None


def _earlier(text: str) -> list[Row]:
    try:
        return read_rows(Path(text))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is not a positive number")
    return count


def _size(text: str) -> int:
    """Read bytes, with a unit or without."""
    digits = text.rstrip(ascii_letters)
    unit = text[len(digits) :] or "B"
    if unit not in SIZES or not digits.isdecimal() or not int(digits):
        known = ", ".join(SIZES)
        raise argparse.ArgumentTypeError(f"{text!r} is no size: a number above 0 and {known}")
    return int(digits) * SIZES[unit]


def _listing() -> str:
    width = max(map(len, registry.CASES))
    return "\n".join(f"{case.name:{width}}  {case.help}" for case in registry.CASES.values())


def _plans(options: argparse.Namespace) -> list[tuple[Case, Plan]]:
    """Return each case with what is to be measured of it, before the first one is."""
    cases = options.cases or registry.CASES.values()
    return [
        (
            case,
            case.plan(
                quick=options.quick,
                actors=tuple(options.actors or ()),
                rounds=options.rounds,
                peer=registry.PEERS.get(options.peer),
                parts=tuple(options.what),
                sizes=tuple(options.bytes or ()),
            ),
        )
        for case in cases
    ]


def _measure(options: argparse.Namespace, plans: Sequence[tuple[Case, Plan]]) -> int:
    about = machine.describe()
    rows = [row for earlier in options.earlier for row in earlier]
    begin = time.monotonic()
    interrupted = False
    try:
        for row in _rows(plans):
            rows.append(row)
            _say(sys.stdout, json_line(row))
    except KeyboardInterrupt:
        interrupted = True
        _say(sys.stderr, "\ninterrupted: these rows had been measured")
    about["took_s"] = round(time.monotonic() - begin)
    _say(sys.stderr, f"\n{table(rows)}\n\n{machine_line(about)}")
    if options.json:
        lines = [json_line({"machine": True, **about}), *map(json_line, rows)]
        options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if interrupted:
        return INTERRUPTED
    if options.report:
        from benchmarks import publish  # noqa: PLC0415  it needs matplotlib

        _say(sys.stderr, f"report: {publish.write(options.report, about, rows)}")
    return 1 if any("error" in row for row in rows) else 0


def _rows(plans: Sequence[tuple[Case, Plan]]) -> Iterator[Row]:
    for case, plan in plans:
        for config in plan.configs():
            yield from _attempt(case, config)


def _attempt(case: Case, config: Config) -> Iterator[Row]:
    """Measure one configuration; one that fails is a row with its error, not a lost table."""
    head: Row = {"case": case.name, "actors": config.actors}
    if config.what:
        head["what"] = config.what
    if config.nbytes:
        head["bytes"] = config.nbytes
    try:
        with deadline(case.limit_s):
            for row in case.run(config):
                yield head | row
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        yield head | {"error": f"{type(error).__name__}: {error}"}


def _say(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
