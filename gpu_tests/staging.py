"""Running stages, each within its time and in process groups of its own, and what is to be told."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from gpu_tests.noting import OUTCOMES
from gpu_tests.stages import OUT, PYTHON, WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpu_tests.stages import Stage

ROOT: Final = Path(__file__).resolve().parents[1]
LEAST_S: Final = 15.0
"""A stage that has less time left is not begun."""
END_S: Final = 5.0
"""How long a command that is stopped has to end by itself."""
_LINE: Final = re.compile(rf"^({'|'.join(OUTCOMES)}) +([\d.]+) s  (.*)$")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage."""

    stage: str
    took_s: float
    codes: tuple[int | str, ...]
    """Of its commands: exit codes, or why there is none."""
    counts: Counter[str]
    """Of its tests."""
    wrong: tuple[str, ...]
    """Its tests that failed."""

    @property
    def is_right(self) -> bool:
        """Tell whether everything has run, and nothing failed."""
        return bool(self.codes) and not any(self.codes) and not self.wrong

    def __str__(self) -> str:
        told = "ok" if self.is_right else "FAILED" if self.codes else "left out: no time"
        tests = ", ".join(f"{self.counts[one]} {one}" for one in OUTCOMES if self.counts[one])
        bad = [str(code) for code in self.codes if code]
        ended = f"; commands ended with {', '.join(bad)}" if bad else ""
        head = f"{self.stage:10} {self.took_s:6.1f} s  {told}"
        return "\n".join([f"{head}  {tests}{ended}", *(f"    {test}" for test in self.wrong)])


class Course:
    """A run of stages."""

    def __init__(self, out: Path, budget_s: float, *, workers: int) -> None:
        """Begin.

        Args:
            out: Folder of the logs; it is made.
            budget_s: Time for all stages together.
            workers: How many tests run at a time.
        """
        out.mkdir(parents=True, exist_ok=True)
        self._out = out.resolve()
        self._deadline = time.monotonic() + budget_s
        self._workers = workers
        self._outcomes: list[Outcome] = []

    def run(self, stages: Iterable[Stage]) -> bool:
        """Run stages; returns whether all have run and are right."""
        for stage in stages:
            _say(f"--- {stage}")
            self._outcomes.append(self._run(stage))
            _say(str(self._outcomes[-1]))
            self._summarise()
        return all(one.is_right for one in self._outcomes)

    def _run(self, stage: Stage) -> Outcome:
        begun = time.monotonic()
        deadline = min(self._deadline, begun + stage.limit_s)
        log = self._out / f"{stage.name}.log"
        codes: list[int | str] = []
        if deadline - begun >= LEAST_S:
            with log.open("w") as file:
                codes += [self._do(command, file, deadline) for command in stage.commands]
        counts, wrong = outcomes_in(log.read_text(errors="replace")) if codes else (Counter(), ())
        return Outcome(stage.name, time.monotonic() - begun, tuple(codes), counts, wrong)

    def _do(self, command: Sequence[str], log: IO[str], deadline: float) -> int | str:
        values = {PYTHON: sys.executable, OUT: str(self._out), WORKERS: str(self._workers)}
        words = [_filled(word, values) for word in command]
        log.write(f"$ {' '.join(words)}\n")
        log.flush()
        code = run_bounded(words, log, max(0.0, deadline - time.monotonic()))
        log.write(f"\n[{code if isinstance(code, str) else f'exit code {code}'}]\n")
        return code

    def _summarise(self) -> None:
        lines = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), *map(str, self._outcomes)]
        (self._out / "summary.txt").write_text("\n".join(lines) + "\n")


def run_bounded(words: Sequence[str], log: IO[str], limit_s: float) -> int | str:
    """Run a command; returns its exit code, or why it has none.

    Args:
        words: The command.
        log: Where its output goes.
        limit_s: How long it may take: then it is interrupted, and a little later killed, with all
            processes of its group. Actors follow their driver.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *_given(environment, "PYTHONPATH")])
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")  # actors are to share one
    try:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        return f"stopped after {limit_s:.0f} s"
    finally:
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have ended
    process.wait()


def outcomes_in(log: str) -> tuple[Counter[str], tuple[str, ...]]:
    """Return how many tests had which outcome, by a log of `noting`, and lines on the failures."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    lines = log.splitlines()
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        outcome, _, test = found.groups()
        counts[outcome] += 1
        if outcome in ("failed", "error"):
            wrong.append(f"{outcome} {test}: {_reason(lines[number + 1 :])}")
    return counts, tuple(wrong)


def _reason(lines: Iterable[str]) -> str:
    """Return what a failure's text says in a line: the first one that pytest marks, or the last."""
    said = ""
    for line in lines:
        if not line.startswith("    "):
            break
        said = line.strip() or said
        if line.startswith("    E   "):
            said = line[8:].strip()
            break
    return said[:200]


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _given(environment: dict[str, str], name: str) -> list[str]:
    return [environment[name]] if environment.get(name) else []


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
