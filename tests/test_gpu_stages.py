"""How the tests of GPUs are run where one is there for minutes: `python -m gpu_tests`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from gpu_tests import facts
from gpu_tests.stages import CORE, OUT, PYTHON, STAGES, Stage
from gpu_tests.staging import ROOT, Course, Outcome, outcomes_in, run_bounded
from tests.live import wait_until

LIMIT_S = 240
CODE_OF_A_TEST = """
import pytest

def test_right(): pass
def test_wrong():
    print("said")
    assert 1 == 2
def test_left_out(): pytest.skip("no such thing")
@pytest.fixture
def broken(): raise ValueError("not there")
def test_around(broken): pass
"""


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-c", code)


def run(tmp_path, *stages: Stage, budget_s: float = LIMIT_S) -> tuple[bool, str]:
    is_right = Course(tmp_path, budget_s, workers=2).run(stages)
    return is_right, (tmp_path / "summary.txt").read_text()


def test_each_stage_has_a_log_and_a_line_and_failures_take_nothing_along(tmp_path) -> None:
    first = Stage("first", "", LIMIT_S, (python("1 / 0"), python("print('after it')")))
    second = Stage("second", "", LIMIT_S, (("no-such-command",), python("print(6 * 7)")))
    third = Stage("third", "", LIMIT_S, ((PYTHON, "-c", "import sys; print(sys.argv)", OUT),))
    is_right, summary = run(tmp_path, first, second, third)
    assert not is_right
    assert "ZeroDivisionError" in (tmp_path / "first.log").read_text()
    assert "after it" in (tmp_path / "first.log").read_text()
    assert "\n42\n" in (tmp_path / "second.log").read_text()
    assert str(tmp_path) in (tmp_path / "third.log").read_text()
    told = [line.split() for line in summary.splitlines()[1:]]
    assert [line[0] for line in told] == ["first", "second", "third"]
    assert [line[3].rstrip(";") for line in told] == ["FAILED", "FAILED", "ok"]
    assert "cannot be started: No such file or directory" in summary


def test_what_takes_too_long_is_ended_with_all_it_has_started(tmp_path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "log"
    begun = time.monotonic()
    with log.open("w") as file:
        told = run_bounded([sys.executable, "-c", code], file, 4.0)
    assert told == "stopped after 4 s"
    assert time.monotonic() - begun < LIMIT_S
    child = int(log.read_text())
    wait_until(lambda: not Path(f"/proc/{child}/exe").exists())


def test_a_stage_for_which_no_time_is_left_is_left_out(tmp_path) -> None:
    is_right, summary = run(tmp_path, Stage("late", "", LIMIT_S, (python("1"),)), budget_s=1.0)
    assert not is_right
    assert "left out: no time" in summary
    assert not (tmp_path / "late.log").exists()


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "in a worker"])
def test_outcomes_are_written_when_they_are_known(tmp_path, workers) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(CODE_OF_A_TEST)
    words = [
        *(sys.executable, "-m", "pytest", "-p", "gpu_tests.noting", "-p", "no:cacheprovider"),
        *("-q", "--no-summary", "--tb", "short", "--rootdir", tmp_path, *workers, file),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    counts, wrong = outcomes_in(done.stdout)
    assert counts == Counter(passed=1, failed=1, skipped=1, error=1), done.stdout + done.stderr
    assert [line.split(":")[0].split()[0] for line in wrong] == ["failed", "error"]
    assert wrong[0].endswith("test_wrong: assert 1 == 2")
    assert wrong[1].endswith("test_around: ValueError: not there")
    assert "said" in done.stdout
    assert "no such thing" in done.stdout


def test_a_summary_says_what_failed_of_how_many() -> None:
    told = str(Outcome("core", 3.25, (1,), Counter(passed=7, failed=1), ("failed a: b",)))
    assert (
        told.splitlines()[0]
        == "core          3.2 s  FAILED  7 passed, 1 failed; commands ended with 1"
    )
    assert told.splitlines()[1] == "    failed a: b"


def test_stages_are_bounded_and_keep_their_logs_apart() -> None:
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    assert all(0 < stage.limit_s <= 540 for stage in STAGES)


def test_all_tests_of_the_core_are_there() -> None:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        *CORE,
    ]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for test in CORE:
        assert test in done.stdout


def test_facts_are_each_told_or_said_to_have_failed(capfd, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    few = dict(list(facts.FACTS.items())[:2])
    monkeypatch.setattr(facts, "FACTS", few)
    assert facts.main([]) == 1
    lines = [line for line in capfd.readouterr().out.splitlines() if ": FAILED" in line]
    assert [line.split(":")[0] for line in lines] == list(few)
