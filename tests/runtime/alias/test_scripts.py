"""Scripts under ``compiled-dag run``, and the processes they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.alias.installation import SHIM

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.proc

EVERYWHERE = """
import subprocess
import sys

import ray
from ray.dag import InputNode


def of(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


@ray.remote
class Actor:
    def names(self, _):
        import ray.exceptions

        child = of("from ray.exceptions import RayTaskError; print(RayTaskError.__name__)")
        return ray.exceptions.RayTaskError.__name__, child.strip()


@ray.remote
def task():
    return ray.__version__, isinstance(ray.put(0), ray.ObjectRef)


if __name__ == "__main__":
    ray.init(num_cpus=2)
    actor = Actor.remote()
    with InputNode() as inp:
        dag = actor.names.bind(inp)
    compiled = dag.experimental_compile()
    print(ray.get(compiled.execute(0)))
    compiled.teardown()
    print(ray.get(task.remote()))
    print(of("import ray; print(ray.__version__)").strip(), sys.argv[1:])
"""


@pytest.fixture
def run(tmp_path):
    """Return what runs Python with `arguments` in a folder of its own, where ray is not."""

    def run_python(*arguments, **variables):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **variables},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run_python


def test_a_script_its_actors_tasks_and_children_have_the_alias(run, tmp_path) -> None:
    (tmp_path / "script.py").write_text(EVERYWHERE)
    done = run("-m", "runtime", "run", "script.py", "-m", "--flag", "x")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "('TaskError', 'TaskError')",
        "('2.60.0', True)",
        "2.60.0 ['-m', '--flag', 'x']",
    ]
    assert done.stderr == ""


def test_a_module_runs_too_and_its_exit_code_counts(run, tmp_path) -> None:
    (tmp_path / "some_module.py").write_text("import sys, ray\nsys.exit(len(sys.argv) + 40)")
    assert run("-m", "runtime", "run", "-m", "some_module", "a").returncode == 42


def test_a_script_that_is_not_there(run) -> None:
    done = run("-m", "runtime", "run", "nowhere.py")
    assert done.returncode == 2
    assert done.stderr == "compiled-dag run: no such script: nowhere.py\n"


def test_a_process_may_switch_the_alias_off(run, tmp_path) -> None:
    (tmp_path / "ray.py").write_text("name = 'the real one'")
    code = "import sys; sys.path.append(''); sys.path.remove(''); import ray; print(ray.name)"
    path = os.pathsep.join([SHIM, str(ROOT), str(tmp_path)])
    done = run("-P" if sys.version_info >= (3, 11) else "-s", "-c", code, PYTHONPATH=path)
    assert done.stdout == "the real one\n", done.stderr


def test_the_shim_works_from_a_checkout_that_is_not_installed(run) -> None:
    code = "import ray, runtime; print(ray.get is runtime.get)"
    variables = {"PYTHONPATH": SHIM, "COMPILED_DAG_RAY_ALIAS": "1"}
    done = run("-c", code, **variables)
    assert done.stdout == "True\n", done.stderr


def test_importing_runtime_does_not_load_the_alias(run) -> None:
    done = run("-c", "import runtime, sys; print('runtime.alias' in sys.modules)")
    assert done.stdout == "False\n"
