"""The case `instructions`: what the mailbox and several graphs cost an execution, by callgrind.

Counted, not timed. Driver and actor run on one thread that never waits (`benchmarks.stepped`); the
count of an execution is the difference of two runs, divided. Starting the interpreter varies by ten
million, so counts are good to some percent, the better the more executions. Needs valgrind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.registry import Config, Plan, Row, case
from benchmarks.served import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_FEW = 100
_COUNTED = re.compile(r"Collected : (\d+)")


@case(
    full=Plan(actors=(1,), rounds=1, trips=5000, whats=("0", "1", "4")),
    quick=Plan(actors=(1,), rounds=1, trips=2000, whats=("0", "4")),
    limit_s=600.0,
)
def instructions(config: Config) -> Iterator[Row]:
    """Instructions per execution (callgrind), beside so many idle programs on the actor."""
    if shutil.which("valgrind") is None:
        yield {"what": f"{config.what} idle programs", "skipped": "valgrind is not installed"}
        return
    few, many = (count(config.what, trips) for trips in (_FEW, _FEW + config.trips))
    each = round((many - few) / config.trips)
    yield {"what": f"{config.what} idle programs", "ours_instructions": each}


def count(idle: str, executions: int) -> int:
    """Return the instructions of a whole run of `benchmarks.stepped`."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "benchmarks.stepped", idle, str(executions)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        cwd=ROOT,
    )
    found = _COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"callgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found[1])
