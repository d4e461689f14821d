"""The programs of the sample graphs as text files, in `golden/`; schedules in `golden/schedules/`.

Regenerate after an intended change of the compiler, and read the difference before you keep it:

    .venv/bin/python -m tests.compiled_dag.goldens && git diff tests/compiled_dag/golden
"""

from __future__ import annotations

from pathlib import Path

from compiled_dag.capture import capture
from compiled_dag.compiler import compile_graph
from compiled_dag.options import CompileOptions
from compiled_dag.program import Program
from compiled_dag.schedule import Schedule
from tests.graphs import SAMPLES, paper, program_of

FOLDER = Path(__file__).parent / "golden"
SCHEDULES = FOLDER / "schedules"
SCHEDULED = (
    "1f1b_2",
    "1f1b_4",
    "buckets",
    "data_parallel_2",
    "gpipe_2",
    "gpipe_4",
    "idle_start",
    "nested",
)


def program(name: str) -> Program:
    """Compile the sample graph `name`."""
    build, num_actors = SAMPLES[name]
    return program_of(build(paper(num_actors)))


def schedule(name: str) -> Schedule:
    """Return the schedule of the sample graph `name`."""
    build, num_actors = SAMPLES[name]
    graph = capture(build(paper(num_actors))).graph
    return Schedule.of(compile_graph(graph, CompileOptions()), graph)


def path(name: str) -> Path:
    """Return where the text of a sample graph is."""
    return FOLDER / f"{name}.txt"


if __name__ == "__main__":
    for sample in SAMPLES:
        path(sample).write_text(f"{program(sample)}\n")
    for sample in SCHEDULED:
        (SCHEDULES / f"{sample}.txt").write_text(f"{schedule(sample)}\n")
