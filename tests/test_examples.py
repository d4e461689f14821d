"""The example scripts run, check themselves, and end in time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_S = 60

pytestmark = pytest.mark.proc


def run(name, *arguments):
    """Run an example; return what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *map(str, arguments)],
        cwd="/",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def test_tasks_dependencies():
    out = run("tasks_dependencies", "--files", 30, "--parts", 5, "--top", 3, "--cpus", 2)
    assert "in 30 files" in out
    assert out.count("#\n") == 3
    assert "agree" in out


def test_tree_aggregation():
    out = run("tree_aggregation", "--leaves", 3, 8, "--size", 1000, "--delay-ms", 30)
    assert out.count("equal") == 2


def test_parameter_server():
    pytest.importorskip("sklearn")
    out = run("parameter_server", "--workers", 2, "--rounds", 3, "--steps", 30)
    assert out.count("accuracy") == 3
    assert "180 gradients" in out


def test_streaming_wait():
    out = run("streaming_wait", "--chunks", 12, "--darts", 500_000, "--in-flight", 3, "--cpus", 2)
    assert "at most 3 chunks in flight" in out
    assert "12 of 12" in out


def test_async_actor():
    out = run("async_actor", "--requests", 200, "--batch", 16)
    assert re.search(r"\d+ batches of \d+ to 16 requests", out)


def test_zero1():
    pytest.importorskip("sklearn")
    out = run("zero1", "--ranks", 3, "--steps", 12)
    assert out.count("match one process") == 2
    assert "sharded (ZeRO-1)" in out


def test_tensor_parallel():
    pytest.importorskip("sklearn")
    out = run("tensor_parallel", "--ranks", 3, "--hidden", 64, "--steps", 12)
    assert "parameters match those of one process" in out


def test_ddp_buckets(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    sizes = ("--layers", 3, "--width", 48, "--blocks", 2, "--steps", 3)
    out = run("ddp_buckets", *sizes, "--out", tmp_path)
    assert "the parameters of all ways match" in out
    assert (tmp_path / "ddp_buckets.png").stat().st_size > 10_000
    assert "S0 v1" in (tmp_path / "program.txt").read_text(encoding="utf-8")


def test_training_ci():
    """How users test their training without a GPU."""
    script = ROOT / "examples" / "test_training_ci.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", script],
        cwd="/",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_says_how_to_run_it(path):
    command = "python -m pytest" if path.name.startswith("test_") else "python"
    assert f"    {command} examples/{path.name}" in path.read_text(encoding="utf-8")
