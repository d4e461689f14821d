"""The example scripts run, check themselves, and end in time."""

from __future__ import annotations

import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_S = 240

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


SMALL = ("--layers", 3, "--width", 16, "--context", 16, "--stages", 3, "--threads", 1)
"""A pipeline that has little to compute. Two threads take ten times as long beside other work."""


def test_pipeline_inference(tmp_path):
    pytest.importorskip("matplotlib")
    sizes = (*SMALL, "--learn", 3, "--batches", 20, "--rounds", 2)
    out = run("pipeline_inference", *sizes, "--out", tmp_path)
    assert "scores match those of one process" in out
    assert "surprises match those of one process" in out
    assert out.count("stage ") >= 3
    assert (tmp_path / "pipeline_inference.png").stat().st_size > 10_000


ORDERS = {
    "1f1b": """
stage 1 | F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
stage 2 | .  F0 F1 .  B0 F2 B1 F3 B2 .  B3
stage 3 | .  .  F0 B0 F1 B1 F2 B2 F3 B3
""",
    "gpipe": """
stage 1 | F0 F1 F2 F3 .  .  .  .  B0 B1 B2 B3
stage 2 | .  F0 F1 F2 F3 .  .  B0 B1 B2 B3
stage 3 | .  .  F0 F1 F2 F3 B0 B1 B2 B3
""",
}
HELD = {"1f1b": [3, 2, 1], "gpipe": [4, 4, 4]}
"""Micro-batches on each stage at once."""


@pytest.mark.parametrize(
    ("schedule", "dtype"),
    [("1f1b", "float64"), pytest.param("gpipe", "float32", marks=pytest.mark.soak)],
)
def test_pipeline_training(tmp_path, schedule, dtype):
    pytest.importorskip("matplotlib")
    sizes = (*SMALL, "--steps", 10, "--schedule", schedule, "--dtype", dtype)
    out = run("pipeline_training", *sizes, "--out", tmp_path)
    assert "parameters' changes match those of one process" in out
    assert ORDERS[schedule] in out
    assert [int(held) for held in re.findall(r"at most (\d) of 4", out)] == HELD[schedule]
    assert (tmp_path / "pipeline_training.png").stat().st_size > 10_000
    program = (tmp_path / "program.txt").read_text(encoding="utf-8")
    assert program[program.index("step |") :] in out


def test_training_ci():
    """How users test their training without a GPU; also where warnings are errors, as here."""
    script = ROOT / "examples" / "test_training_ci.py"
    done = subprocess.run(
        [sys.executable, script, "-q", "-p", "no:cacheprovider"],
        cwd="/",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "6 passed" in done.stdout


@pytest.fixture
def own_sigint():
    """Take back what an example has made of Ctrl-C: the end of the process, as it ends itself."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "wrong",
    [
        *("async_actor --requests 0", "async_actor --batch 0", "async_actor --patience-ms -1"),
        *("tree_aggregation --leaves 0", "tree_aggregation --parallel 0"),
        *("tasks_dependencies --parts 0", "tasks_dependencies --files 0"),
        *("parameter_server --workers 0", "parameter_server --rounds 0"),
        *("zero1 --transport foo", "tensor_parallel --transport foo"),
    ],
)
def test_wrong_arguments_are_told_by_name(wrong, monkeypatch, capsys, own_sigint):
    """Here, not in processes of their own: nothing has been started when arguments are read."""
    name, option, value = wrong.split()
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", option, value])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 2
    assert f"{name}.py: error: argument {option}: " in capsys.readouterr().err


DYING = """
import sys
from digits.interrupt import interruptible
from runtime.exceptions import ActorDiedError

def main():
    raise ActorDiedError("actor Rank(1) died: killed by signal SIGKILL")

sys.exit(interruptible(main))
"""


def test_the_death_of_an_actor_is_told_without_a_stack():
    done = subprocess.run(
        [sys.executable, "-c", DYING],
        cwd=ROOT / "examples",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "ActorDiedError: actor Rank(1) died: killed by signal SIGKILL\n"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_says_how_to_run_it(path):
    command = "python -m pytest" if path.name.startswith("test_") else "python"
    assert f"    {command} examples/{path.name}" in path.read_text(encoding="utf-8")
