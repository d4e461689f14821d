"""init, shutdown, logs, environment, threads, start-up."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import runtime
from tests.runtime import scripts
from tests.runtime.actors import Worker

pytestmark = pytest.mark.proc

# Not imported here: a driver that has torch waits for it in every actor it starts.
needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")


def test_init_returns_facts_and_leaves_as_a_context():
    with runtime.init(num_gpus=2) as facts:
        assert runtime.is_initialized()
        assert facts["num_gpus"] == 2
        with pytest.raises(TypeError):
            facts["num_gpus"] = 3
    assert not runtime.is_initialized()


def test_a_second_init_is_refused_unless_ignored(session):
    with pytest.raises(RuntimeError, match="ignore_reinit_error"):
        runtime.init()
    runtime.init(ignore_reinit_error=True)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"surprise": 1}, RuntimeError, "surprise"),
        ({"address": "auto"}, ConnectionError, "single machine"),
        ({"num_gpus": -1}, ValueError, "num_gpus"),
        ({"num_cpus": "2"}, TypeError, "num_cpus"),
        ({"gpu_visibility": "some"}, ValueError, "assigned_first"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
    ],
)
def test_init_checks_its_arguments(arguments, kind, text):
    with pytest.raises(kind, match=text):
        runtime.init(**arguments)
    assert not runtime.is_initialized()


def test_init_ignores_what_means_nothing_here_and_says_so(caplog):
    caplog.set_level("DEBUG", "runtime")
    ignored = {"include_dashboard": False, "_temp_dir": "/x", "logging_level": 3, "labels": {}}
    runtime.init(**ignored, dashboard_port=None)
    runtime.shutdown()
    assert [record.args[0] for record in caplog.records] == ["labels", *list(ignored)[:-1]]


def test_shutdown_is_idempotent_and_sessions_follow_each_other(own_zygotes):
    runtime.shutdown()
    for value in range(3):
        assert runtime.get(Worker.remote().echo.remote(value)) == value
        runtime.shutdown(wait_for_processes=True)
        runtime.shutdown()


def nobody():
    with pytest.raises(ValueError, match="nobody"):
        runtime.get_actor("nobody")


FIRST_USES = {
    "put": lambda: runtime.get(runtime.put(1)),
    "task": lambda: runtime.get(runtime.remote(max).remote(1, 2)),
    "actor": lambda: runtime.get(Worker.remote().echo.remote(1)),
    "get_actor": nobody,
    "get_gpu_ids": runtime.get_gpu_ids,
    "get_runtime_context": runtime.get_runtime_context,
    "cluster_resources": runtime.cluster_resources,
    "nodes": runtime.nodes,
}


@pytest.mark.parametrize("use", FIRST_USES)
def test_the_first_use_starts_a_session(use):
    assert not runtime.is_initialized()
    FIRST_USES[use]()
    assert runtime.is_initialized()
    runtime.shutdown()


def test_by_default_there_is_what_this_process_may_use(no_leaks):
    with runtime.init():
        found = runtime.cluster_resources()
    assert found["CPU"] == len(os.sched_getaffinity(0))
    assert found.keys() <= {"CPU", "GPU"}


def test_a_script_without_shutdown_ends_clean():
    done = scripts.run("worker = Worker.remote(); print(runtime.get(worker.echo.remote(1)))")
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


def test_the_drivers_environment_is_left_alone(session):
    before = dict(os.environ)
    worker = Worker.remote()
    assert runtime.get(worker.environment.remote("TORCH_NCCL_ENABLE_MONITORING")) == "0"
    assert dict(os.environ) == before


def test_actors_see_the_drivers_environment_and_folder(session, monkeypatch, tmp_path):
    monkeypatch.setenv("COLOUR", "green")
    monkeypatch.chdir(tmp_path)
    worker = Worker.remote()
    assert runtime.get(worker.environment.remote("COLOUR")) == "green"
    assert runtime.get(worker.__ray_call__.remote(lambda _: str(Path.cwd()))) == str(tmp_path)


@needs_torch
@pytest.mark.parametrize(("options", "expected"), [({}, 1), ({"num_cpus": 2}, 2)])
def test_threads_follow_num_cpus(session, options, expected):
    worker = Worker.options(**options).remote()
    assert runtime.get(worker.threads.remote()) == expected
    assert runtime.get(worker.environment.remote("OMP_NUM_THREADS")) == str(expected)


@needs_torch
def test_env_vars_win_over_num_cpus(session):
    options = {"num_cpus": 2, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
    assert runtime.get(Worker.options(**options).remote().threads.remote()) == 1


def test_actors_draw_different_random_numbers(session):
    random.seed(0)
    drawn = runtime.get([Worker.remote().draw.remote() for _ in range(3)])
    assert len({number for pair in drawn for number in pair}) == 6


def test_an_actor_holds_only_descriptors_of_its_own(session):
    first, second = Worker.remote(), Worker.remote()
    runtime.get(first.echo.remote(1))
    kinds = runtime.get(second.descriptors.remote())
    assert sum(kind.startswith("socket:") for kind in kinds) == 1
    assert sum(kind.startswith("pipe:") for kind in kinds) == 3  # output, errors, its stack


def test_output_reaches_the_drivers_standard_error_with_a_prefix():
    done = scripts.run("""
worker = Worker.remote()
runtime.get([worker.say.remote("to out"), worker.say.remote("to err", "stderr")])
print(runtime.get(worker.pid.remote()))
""")
    pid = done.stdout.strip()
    lines = sorted(done.stderr.splitlines())
    assert lines == [f"(Worker pid={pid}) to err", f"(Worker pid={pid}) to out"]


def test_output_can_be_kept_back():
    done = scripts.run("""
runtime.init(log_to_driver=False)
worker = Worker.remote()
runtime.get(worker.say.remote("hello"))
try:
    runtime.get(worker.exit_hard.remote(1))
except runtime.exceptions.ActorDiedError as error:
    print(error.stderr_tail)
""")
    assert (done.stdout, done.stderr) == ("last words\n", "")


def test_a_flood_of_output_is_passed_on_in_bounded_memory():
    done = scripts.run("""
import resource
runtime.init()
worker, other = Worker.remote(), Worker.remote()
runtime.get([worker.echo.remote(1), other.echo.remote(1)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ref = worker.flood.remote(50)
while not runtime.wait([ref], timeout=0)[0]:
    runtime.get(other.echo.remote(1), timeout=120)
assert runtime.get(ref) == 50
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
""")
    assert done.returncode == 0, done.stderr[-1000:]
    assert int(done.stdout) < 30_000  # KiB
    assert done.stderr.count("\n") == 500_000


def test_importing_is_light():
    code = "import sys, runtime; print('torch' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=scripts.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_public_names_are_exported_once():
    assert len(runtime.__all__) == len(set(runtime.__all__))
    assert all(hasattr(runtime, name) for name in runtime.__all__)
    assert runtime.exceptions.ActorDiedError.__module__ == "compiled_dag.errors"


def groups() -> tuple[int, int, int]:
    return os.getpid(), os.getpgid(0), os.getsid(0)


def test_processes_are_groups_in_the_drivers_session(own_zygotes):
    """Linux may schedule every session as one: a yield gives way within the session only."""
    with runtime.init():
        pid, group, session = runtime.get(runtime.remote(groups).remote())
        assert pid == group
        assert session == os.getsid(0)


@pytest.mark.parametrize("enabled", [True, False])
def test_init_imports_a_session_without_looking_for_garbage(enabled):
    done = scripts.run(f"""
import gc
gc.set_threshold(10)
gc.{"enable" if enabled else "disable"}()
collected = []

def note(_phase, _info):
    if "runtime.session" in sys.modules and "runtime.zygotes" not in sys.modules:
        collected.append(1)  # in the middle of the import

gc.callbacks.append(note)
runtime.init()
print("runtime.zygotes" in sys.modules, collected, gc.isenabled())
""")
    assert done.stdout == f"True [] {enabled}\n", done.stderr
