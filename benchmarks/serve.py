"""Measure a work in a process of its own, for a peer that has its own environment.

    python -m benchmarks.serve ray "actor call" 1000

Reads a number of trips a line and answers with the nanoseconds of each as a line of JSON; says
``ready`` first. Ends with its standard input. What the system prints goes to standard error.
Between blocks all processes it has started are stopped: others are measured then.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

from benchmarks.catalog import find
from benchmarks.sessions import parked
from benchmarks.systems import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.works import Work


def main(arguments: list[str]) -> None:
    """Serve one work of one system."""
    name, what, trips = arguments
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    system = SYSTEMS[name]
    core = system.load()
    core.init(**dict(system.options))
    try:
        _serve(find(what, int(trips)), name, sys.stdin, answers)
    finally:
        core.shutdown()


def _serve(work: Work, name: str, questions: Iterable[str], answers: TextIO) -> None:
    with work(SYSTEMS[name]) as block, ExitStack() as between:
        answers.write("ready\n")
        between.enter_context(parked())
        for line in questions:
            between.close()
            times = list(block(int(line)))
            between.enter_context(parked())
            answers.write(json.dumps(times) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
