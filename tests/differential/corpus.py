"""The scripts, what they say of themselves, and what was recorded of them."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RAY = HERE / "transcripts-ray.txt"
"""What each script prints under the real Ray."""
HERE_INSTEAD = HERE / "transcripts-departures.txt"
"""What those print here that depart from it on purpose."""
GUIDE = ROOT / "docs" / "migrating-from-ray.md"
PLAYER = HERE / "player.py"
NAMES = HERE / "names.py"
RECORDED_NAMES = HERE / "ray-names.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One script, and the marks in its docstring."""

    path: Path
    title: str
    departs: tuple[str, ...] = ()
    """Numbers of the lines of the guide that say why it prints something else here."""
    waits_for: str = ""
    """What it needs that is not there yet."""
    own_session: bool = False
    """It starts a session itself."""
    needs_torch: bool = False

    @property
    def name(self) -> str:
        """What transcripts call it."""
        return self.path.stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a script did."""

    text: str
    error: str | None = None
    took_s: float = 0.0


def scripts() -> list[Script]:
    """Return the corpus, by name."""
    return [_read(path) for path in sorted((HERE / "scripts").glob("*_*.py"))]


def _read(path: Path) -> Script:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    marks = dict(re.findall(r"^(Departs|Waits for|Session): (.*)$", text, re.MULTILINE))
    departs = tuple(re.findall(r"\w+", marks.get("Departs", "")))
    return Script(
        path=path,
        title=text.splitlines()[0] if text else "",
        departs=departs,
        waits_for=marks.get("Waits for", ""),
        needs_torch="import torch\n" in path.read_text(),
        own_session=marks.get("Session") == "own",
    )


def departures() -> set[str]:
    """Return the numbers of the deliberate departures, as the guide lists them."""
    section = GUIDE.read_text().partition("## What is different")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return {number for row in rows[1:] for number in re.findall(r"\b[A-Z]\d+\b", _last(row))}


def _last(row: str) -> str:
    return row.rstrip("| ").rpartition("|")[2]


# --- playing


def play(python: str, mode: str, chosen: list[Script], limit_s: float) -> dict[str, Played]:
    """Play scripts in a process of `python`; after one that brings it down, in another."""
    played: dict[str, Played] = {}
    left = sorted(chosen, key=lambda script: script.own_session)  # the others share one
    with tempfile.TemporaryDirectory(prefix="differential") as folder:
        while left:
            results, log = Path(folder, "results"), Path(folder, "log")
            results.touch()
            with log.open("w") as out:
                code = _run([python, str(PLAYER), mode, str(results)], left, out, limit_s)
            for line in map(json.loads, results.read_text().splitlines()):
                name = line.pop("name")
                played[name] = Played(**line)
            left = [script for script in left if script.name not in played]
            if left:  # the one after the last that ended brought the process down
                what = f"ends the process with {code}\n"
                played[left.pop(0).name] = Played(text=what, error=log.read_text()[-2000:])
    return played


def _run(command: list[str], chosen: list[Script], out: object, limit_s: float) -> int | None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE / "scripts"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "PYTHONHASHSEED": "0",
    }
    paths = [str(script.path) for script in chosen]
    try:
        done = subprocess.run(
            [*command, *paths],
            cwd=HERE,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def play_in_turns(
    python: str, mode: str, chosen: list[Script], limit_s: float, num_processes: int = 2
) -> dict[str, Played]:
    """Play scripts in several processes at once, every n-th in the same."""
    parts = [chosen[start::num_processes] for start in range(num_processes)]
    with ThreadPoolExecutor(num_processes) as pool:
        results = pool.map(lambda part: play(python, mode, part, limit_s), parts)
        return {name: done for result in results for name, done in result.items()}


# --- what was recorded


def read_transcripts(path: Path) -> dict[str, str]:
    """Return the recorded transcripts by name."""
    parts = re.split(r"^=== (\w+)\n", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write_transcripts(path: Path, transcripts: dict[str, str]) -> None:
    """Record transcripts, sorted by name."""
    path.write_text("".join(f"=== {name}\n{transcripts[name]}" for name in sorted(transcripts)))
