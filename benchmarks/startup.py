"""The case `startup`: what a script pays before its first actor has answered.

Every figure comes from fresh interpreters, as a user's script would start. The scripts report
readings of the monotonic clock, which all processes of a machine share, so that the interpreter's
own start is part of the figure. The floor is an interpreter that only makes the script's imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from benchmarks import peers
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.stats import paired_differences
from benchmarks.systems import OURS, SYSTEMS, System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SCRIPT_LIMIT_S = 60.0
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"

Readings: TypeAlias = dict[str, list[float]]

USER_SCRIPT = """
import json, time
{first}
import {system.core} as runtime
from {system.dag} import InputNode

@runtime.remote
class Echo:
    def echo(self, value):
        return value

def answer():
    if runtime.get(Echo.remote().echo.remote(1)) != 1:
        raise SystemExit("the actor did not echo its input")
    return time.monotonic()

ready = time.monotonic()
runtime.init(**dict({system.options!r}))
up = time.monotonic()
{then}
answers = [answer() for _ in range({actors})]
print(json.dumps({{"ready": [ready], "up": [up], "answers": answers}}))
"""

FLOOR_SCRIPT = """
import json, time
{first}
{then}
print(json.dumps({{"ready": [time.monotonic()]}}))
"""

IMPORT_SCRIPT = """
import json, sys, time
import numpy
before = time.monotonic()
import compiled_dag, collective, runtime
after = time.monotonic()
print(json.dumps({"took": [after - before], "torch": ["torch" in sys.modules]}))
"""


@case(
    full=Plan(actors=(4,), rounds=3),
    quick=Plan(actors=(2,), rounds=1),
    limit_s=300.0,
)
def startup(config: Config) -> Iterator[Row]:
    """Start of a script to its first actor's answer, `init`, further actors, imports."""
    for row in _figures(config):
        yield row | {"rounds": config.rounds}


def _figures(config: Config) -> Iterator[Row]:
    yield _imports(config)
    yield from _start(config, "no", "import numpy", "")
    if find_spec("torch"):
        yield from _start(config, "before init", "import numpy, torch", "")
        yield from _start(config, "after init", "import numpy", "import torch")


def _imports(config: Config) -> Row:
    readings = [_run(IMPORT_SCRIPT)[1] for _ in range(config.rounds + 1)][1:]
    return {
        "what": "import of the three packages beyond numpy",
        "torch": any(reading["torch"][0] for reading in readings),
        "ours_ms": _ms([reading["took"][0] for reading in readings]),
    }


def _start(config: Config, torch: str, first: str, then: str) -> Iterator[Row]:
    """Time scripts that import torch not at all, before `init`, or after it (then both overlap)."""
    times = _interleave(config, first, then)
    peer = _peer_figures(config, times)
    yield {
        "what": "start of the script to the first answer",
        "torch": torch,
        "ours_ms": _ms(times["first"]),
        "floor_ms": _ms(times["floor"]),
        "beyond_ms": _ms(paired_differences(times["first"], times["floor"])),
        **peer("first"),
    }
    yield {"what": "init", "torch": torch, "ours_ms": _ms(times["init"]), **peer("init")}
    if later := times["later"]:
        yield {
            "what": "each later actor, until it answers",
            "torch": torch,
            "ours_ms": _ms(later),
            "worst_ms": round(max(later) * 1e3, 1),
            **peer("later"),
        }


def _peer_figures(config: Config, times: Readings) -> Callable[[str], Row]:
    """Return what adds the peer's figures to a row, by what is measured."""

    def figures(what: str) -> Row:
        name = config.peer.name if config.peer else ""
        theirs = times.get(f"{name} {what}")
        if not theirs:
            return {}
        ratio = median(theirs) / median(times[what])
        return {f"{name}_ms": _ms(theirs), f"{name}_ratio": round(ratio, 2)}

    return figures


def _interleave(config: Config, first: str, then: str) -> Readings:
    """Run the user's script and the floor's in turn; the first pair warms the page cache."""
    floor = FLOOR_SCRIPT.format(first=first, then=then)
    times: Readings = defaultdict(list)
    for turn in range(config.rounds + 1):
        measured = {"": _start_of(OURS, config, first, then)}
        floor_began, floor_readings = _run(floor)
        if config.peer is not None:
            system = SYSTEMS[config.peer.name]
            measured[f"{system.name} "] = _start_of(system, config, first, then)
        if turn:
            times["floor"].append(floor_readings["ready"][0] - floor_began)
            for prefix, reading in measured.items():
                _note(times, prefix, *reading)
    return times


def _start_of(system: System, config: Config, first: str, then: str) -> tuple[float, Readings]:
    script = USER_SCRIPT.format(first=first, then=then, actors=config.actors, system=system)
    if system is OURS:
        return _run(script)
    return _run(script, str(peers.python()), peers.environment())


def _note(times: Readings, prefix: str, began: float, readings: Readings) -> None:
    answers = readings["answers"]
    times[f"{prefix}first"].append(answers[0] - began)
    times[f"{prefix}init"].append(readings["up"][0] - readings["ready"][0])
    times[f"{prefix}later"] += paired_differences(answers[1:], answers[:-1])


def _run(
    script: str, python: str = sys.executable, environment: Mapping[str, str] | None = None
) -> tuple[float, Readings]:
    """Run a script in a fresh interpreter; return when it was started and what it read."""
    began = time.monotonic()
    done = subprocess.run(
        [python, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=SCRIPT_LIMIT_S,
        env=_environment() if environment is None else environment,
    )
    if done.returncode:
        raise RuntimeError(f"a start-up script ended with {done.returncode}:\n{done.stderr}")
    readings: Readings = json.loads(done.stdout.splitlines()[-1])
    return began, readings


def _environment() -> dict[str, str]:
    """Let the scripts keep their bytecode, as an installed package does: compile it only once."""
    return {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}


def _ms(seconds: Sequence[float]) -> float:
    return round(median(seconds) * 1e3, 1)
