"""Examples on `cuda`: they check their results against one process themselves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpu_tests.crew import DEVICE
from tests.test_examples import ROOT, SMALL

pytestmark = [pytest.mark.proc, pytest.mark.timeout(300)]
LIMIT_S = 240
GIVEN = list(filter(None, [os.environ.get("PYTHONPATH")]))
"""Where packages may be that are not installed."""
DIGITS = ("--ranks", 2, "--steps", 12)


@pytest.mark.parametrize(
    ("name", "needs", "arguments", "says"),
    [
        ("train_digits", "sklearn", ("--epochs", 1, "--rounds", 1), "match"),
        ("zero1", "sklearn", DIGITS, "match one process"),
        ("tensor_parallel", "sklearn", (*DIGITS, "--hidden", 64), "match those of one process"),
        ("ddp_buckets", "sklearn", ("--blocks", 2, "--steps", 3), "of all ways match"),
        (
            "pipeline_inference",
            "matplotlib",
            (*SMALL, "--learn", 3, "--batches", 20, "--rounds", 2),
            "match those of one process",
        ),
        ("pipeline_training", "matplotlib", (*SMALL, "--steps", 10), "match those of one process"),
    ],
)
def test_an_example_runs_there_and_finds_itself_right(
    tmp_path, name, needs, arguments, says
) -> None:
    pytest.importorskip(needs)
    script, where = ROOT / "examples" / f"{name}.py", ("--device", DEVICE)
    out = () if name in {"zero1", "tensor_parallel"} else ("--out", tmp_path)
    done = subprocess.run(
        [sys.executable, script, *map(str, (*arguments, *where, *out))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *GIVEN])},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert says in done.stdout
