"""`runtime_env`: variables, folders, keys without effect, and what cannot be set up."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest

import runtime
from runtime import environment
from runtime.environment import check_runtime_env, import_path, needs_fresh_interpreter
from runtime.exceptions import ActorDiedError, RuntimeEnvSetupError
from tests.live import LONG_S
from tests.runtime.actors import Worker


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data.txt").write_text("data")
    (tmp_path / "in_the_folder.py").write_text("NUMBER = 42")
    return tmp_path


# --- checks


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ("x", TypeError, "dict, not str"),
        ({"env_vars": "A=1"}, TypeError, "env_vars must be a dict"),
        ({"env_vars": {"A": 1}}, TypeError, "'A': 1"),
        ({"env_vars": {"A=B": "1"}}, ValueError, "A=B"),
        ({"env_vars": {"": "1"}}, ValueError, "cannot be a variable"),
        ({"env_vars": {"A": "\0"}}, ValueError, "'A'"),
        ({"working_dir": 1}, TypeError, "path, not 1"),
        ({"working_dir": "/no/such/folder"}, ValueError, "/no/such/folder"),
    ],
)
def test_what_is_refused(given, kind, text):
    with pytest.raises(kind, match=text):
        check_runtime_env(given)


def test_keys_without_effect_are_accepted_with_one_warning(monkeypatch):
    monkeypatch.setattr(environment, "_warned", set())
    with pytest.warns(UserWarning, match="'conda', 'pip' without effect") as caught:
        found = check_runtime_env({"pip": ["x"], "env_vars": {"A": "1"}, "conda": {}})
    assert found == {"env_vars": {"A": "1"}}
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_runtime_env({"pip": ["y"]})


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "NCCL_DEBUG", "PYTHONPATH", "LD_PRELOAD"])
def test_variables_of_libraries_and_of_the_interpreter_come_too_late_for_a_fork(name):
    assert needs_fresh_interpreter({"A": "1", name: "1"})
    assert not needs_fresh_interpreter({"A": "1"})


def test_the_folder_and_pythonpath_come_before_the_drivers_path():
    variables = {"PYTHONPATH": os.pathsep.join(["/a", "", "/b"])}
    assert import_path(variables, "/folder", ["/rest"]) == ["/folder", "/a", "/b", "/rest"]
    assert import_path({}, None, ["/rest"]) == ["/rest"]


# --- in processes


@runtime.remote
def surroundings(name):
    return os.environ.get(name), os.getcwd(), sys.path[0]  # noqa: PTH109


@runtime.remote
def use_the_folder():
    from in_the_folder import NUMBER

    return NUMBER, Path("data.txt").read_text()


@pytest.mark.proc
def test_variables_and_folders_of_actors_and_tasks(session, folder):
    env = {"env_vars": {"COLOUR": "red"}, "working_dir": str(folder)}
    actor = Worker.options(runtime_env=env).remote()
    assert get(actor.environment.remote("COLOUR")) == "red"
    assert get(actor.__ray_call__.remote(lambda _: os.getcwd())) == str(folder)  # noqa: PTH109
    task = surroundings.options(runtime_env=env)
    assert get(task.remote("COLOUR")) == ("red", str(folder), str(folder))
    assert get(surroundings.remote("COLOUR"))[:2] == (None, os.getcwd())  # noqa: PTH109
    assert get(use_the_folder.options(runtime_env=env).remote()) == (42, "data")
    assert "COLOUR" not in os.environ


@pytest.mark.proc
def test_the_sessions_variables_and_folder_are_the_default(folder):
    with runtime.init(runtime_env={"env_vars": {"A": "1", "B": "1"}, "working_dir": folder}):
        task = surroundings.options(runtime_env={"env_vars": {"B": "2"}})
        assert [get(task.remote(name))[0] for name in "AB"] == ["1", "2"]
        assert get(use_the_folder.remote()) == (42, "data")


@pytest.mark.proc
def test_variables_of_a_library_start_a_new_interpreter(session):
    env = {"env_vars": {"OMP_NUM_THREADS": "3", "PYTHONPATH": "/a", "COLOUR": "blue"}}
    actor = Worker.options(runtime_env=env).remote(5)
    names = ("OMP_NUM_THREADS", "COLOUR")
    assert get([actor.environment.remote(name) for name in names]) == ["3", "blue"]
    assert get(actor.__ray_call__.remote(lambda _: sys.path[0])) == "/a"
    assert get(actor.add.remote(1)) == 6


@pytest.mark.proc
def test_a_folder_that_is_gone_when_the_process_is_to_start(session, folder):
    env = {"working_dir": str(folder)}
    task = surroundings.options(runtime_env=env)
    kind = Worker.options(runtime_env=env)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(RuntimeEnvSetupError, match=rf"working_dir.*{folder}"):
        get(task.remote("A"))
    actor = kind.remote()
    with pytest.raises(RuntimeEnvSetupError, match=rf"working_dir.*{folder}"):
        get(actor.add.remote(1))
    with pytest.raises(ActorDiedError, match="could not be started"):
        get(actor.add.remote(1))
    assert get(surroundings.remote("A"))[0] is None
    folder.mkdir()
    assert get(task.remote("A"))[1] == str(folder)
