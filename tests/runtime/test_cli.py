"""The command line."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from compiled_dag import GraphError
from runtime import cli, doctor, gloo_examination, gpu_examination, gpus
from runtime.doctor import Finding, Level

ROOT = Path(__file__).parents[2]


def test_version(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"compiled-dag \S.*\n", capsys.readouterr().out)


def test_both_packages_are_the_command_line(tmp_path) -> None:
    for package in ("compiled_dag", "runtime"):
        command = [sys.executable, "-m", package, "names", "ray.util.queue"]
        done = subprocess.run(
            command, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert "  Queue  =  runtime.util.queue.Queue\n" in done.stdout
        assert subprocess.run([*command[:3], "--no"], check=False, stderr=-3).returncode == 2


def test_without_a_command_it_says_what_there_is(capsys) -> None:
    assert cli.main([]) == 2
    assert {"run", "doctor", "names"} <= set(re.findall(r"\w+", capsys.readouterr().out))


def test_names_of_a_module(capsys) -> None:
    assert cli.main(["names", "ray.util.queue"]) == 0
    assert "  Queue  =  runtime.util.queue.Queue\n" in capsys.readouterr().out
    assert cli.main(["names", "ray.data"]) == 1
    assert "ray.data is not offered" in capsys.readouterr().err


@pytest.mark.parametrize("module", [False, True])
def test_run_becomes_the_script(monkeypatch, tmp_path, module) -> None:
    script = tmp_path / "script.py"
    script.touch()

    def execve(path, arguments, environment):
        raise InterruptedError(arguments, environment)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(InterruptedError) as caught:
        cli.main(["run", *(["-m"] if module else []), str(script), "-m", "--flag", "run"])
    arguments, environment = caught.value.args
    given = [*(["-m"] if module else []), str(script), "-m", "--flag", "run"]
    assert arguments[-len(given) :] == given
    assert environment["COMPILED_DAG_RAY_ALIAS"] == "1"


# --- doctor


@pytest.mark.proc
def test_doctor_finds_this_machine_fit(no_leaks) -> None:
    out = io.StringIO()
    assert doctor.examine(out) == 0, out.getvalue()
    for subject in ("python", "memfd", "futex", "pidfd", "actor", "round trip", "gloo"):
        assert f"\nok    {subject}" in f"\n{out.getvalue()}"


def only(*checks):
    """Run the doctor with these checks; return exit code and report."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "CHECKS", checks)
        return doctor.examine(out), out.getvalue()


def test_a_warning_is_no_failure() -> None:
    def _check():
        yield Finding(Level.WARNING, "torch", "not installed", "install it")

    code, report = only(_check)
    assert code == 0
    assert report == f"WARN  torch       not installed\n{'':18}-> install it\n\n1 warning\n"


def test_a_check_that_raises_is_a_failure_and_the_others_run() -> None:
    def _fork():
        raise OSError("not permitted")
        yield

    def _fine():
        yield Finding(Level.OK, "fine", "yes")

    code, report = only(_fork, _fine)
    assert code == 1
    assert "FAIL  fork        OSError: not permitted\nok    fine" in report
    assert report.endswith("1 failure\n")


def test_a_kernel_feature_that_is_forbidden_is_named(monkeypatch) -> None:
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr(os, "pidfd_open", refuse)
    code, report = only(doctor._kernel)
    assert code == 1
    assert "FAIL  pidfd       [Errno 1] Operation not permitted" in report
    assert "seccomp" in report
    assert "ok    futex" in report


def test_limits_that_are_too_low(monkeypatch) -> None:
    limits = {resource.RLIMIT_NOFILE: 256, resource.RLIMIT_AS: 1 << 40}
    monkeypatch.setattr(
        resource,
        "getrlimit",
        lambda limit: (limits.get(limit, resource.RLIM_INFINITY), resource.RLIM_INFINITY),
    )
    code, report = only(doctor._limits)
    assert code == 1
    assert "WARN  descriptors at most 256 (hard limit unlimited)" in report
    assert "FAIL  addresses   at most 1 TiB" in report
    assert "file size" not in report


def test_a_running_session_is_left_alone(monkeypatch) -> None:
    import runtime

    monkeypatch.setattr(runtime, "is_initialized", lambda: True)
    assert only(doctor._session) == (
        0,
        "note  session     one is running here: not tried\n\nall there\n",
    )


def test_gloo_is_not_tried_beside_a_session(monkeypatch) -> None:
    import runtime

    monkeypatch.setattr(runtime, "is_initialized", lambda: True)
    code, report = only(doctor._gloo)
    assert (code, report.splitlines()[0]) == (
        0, "note  gloo        a session is running here: not tried"
    )  # fmt: skip


def test_gloo_that_fails_is_a_warning_with_a_remedy(monkeypatch) -> None:
    def fail():
        raise GraphError("Unable to find address for: lo")

    monkeypatch.setattr(gloo_examination, "_summed", fail)
    code, report = only(doctor._gloo)
    assert code == 0
    assert "GraphError: Unable to find address for: lo" in report
    assert "transport='shm' does without" in report


def test_gpus_that_cannot_be_used_are_warnings(monkeypatch) -> None:
    """Graphs on CPUs do without them."""

    def refuse():
        raise RuntimeError("CUDA driver initialization failed")
        yield

    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it is an ImportError
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    monkeypatch.setattr(gpus, "count_devices", lambda: 1)
    for check in ("devices", "sharing"):
        monkeypatch.setattr(gpu_examination, check, refuse)
    code, report = only(doctor._gpus)
    assert code == 0
    assert "WARN  cupy        cannot be imported: " in report
    assert "pip install 'compiled-dag[gpu]'" in report
    assert report.count("RuntimeError: CUDA driver initialization failed") == 2
