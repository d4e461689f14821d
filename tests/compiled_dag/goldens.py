"""The programs of the sample graphs as text files, in `golden/`.

Regenerate after an intended change of the compiler, and read the difference before you keep it:

    .venv/bin/python -m tests.compiled_dag.goldens && git diff tests/compiled_dag/golden
"""

from __future__ import annotations

from pathlib import Path

from compiled_dag.program import Program
from tests.graphs import SAMPLES, paper, program_of

FOLDER = Path(__file__).parent / "golden"


def program(name: str) -> Program:
    """Compile the sample graph `name`."""
    build, num_actors = SAMPLES[name]
    return program_of(build(paper(num_actors)))


def path(name: str) -> Path:
    """Return where the text of a sample graph is."""
    return FOLDER / f"{name}.txt"


if __name__ == "__main__":
    for sample in SAMPLES:
        path(sample).write_text(f"{program(sample)}\n")
