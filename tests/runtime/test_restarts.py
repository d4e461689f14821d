"""Actors that are made again, calls that are made again, and actors that end themselves."""

from __future__ import annotations

import os
import signal

import pytest

import runtime
from compiled_dag import InputNode
from runtime.exceptions import ActorDiedError, ActorUnavailableError, GraphActorDiedError
from runtime.util import state
from tests.live import LONG_S, wait_until
from tests.runtime import subjects
from tests.runtime.actors import wait_until_dead
from tests.runtime.subjects import Async, Plain, Threaded, events

pytestmark = pytest.mark.proc


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "path")


@pytest.fixture
def until(tmp_path):
    return str(tmp_path / "until")


def release(until):
    with open(until, "w"):  # noqa: PTH123  as short as it gets
        pass


def back(actor):
    """Wait until an actor is there again; returns its state."""
    found = []

    def is_back():
        try:
            found.append(get(actor.state.remote()))
        except ActorUnavailableError:
            return False
        return True

    wait_until(is_back)
    return found[-1]


def kill(actor):
    pid = get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    assert wait_until_dead([pid]) == []


@pytest.mark.parametrize("kind", [Plain, Async, Threaded])
def test_the_state_is_lost_and_the_constructor_runs_again(session, kind, path):
    actor = kind.options(max_restarts=1).remote(5, path)
    assert get(actor.add.remote(1)) == 6
    ref = actor.die.remote()
    with pytest.raises(ActorUnavailableError, match="max_task_retries"):
        get(ref)
    assert back(actor) == (5, 2)
    with pytest.raises(ActorDiedError):
        get(actor.die.remote())
    with pytest.raises(ActorDiedError):
        get(actor.echo.remote(1))


def test_arguments_of_the_constructor_may_be_references(session, path):
    actor = Plain.options(max_restarts=1).remote(runtime.put(b"x" * 200_000), path)
    assert get(actor.state.remote())[1] == 1
    kill(actor)
    assert back(actor) == (b"x" * 200_000, 2)


def test_a_constructor_that_fails_the_second_time(session, path):
    actor = Plain.options(max_restarts=5).remote(0, path, 2)
    assert get(actor.echo.remote(1)) == 1
    kill(actor)

    def is_dead():
        try:
            get(actor.echo.remote(1))
        except ActorUnavailableError:
            return False
        except ActorDiedError as error:
            return "constructor number 2 fails" in str(error)

    wait_until(is_dead)
    assert events(path) == 2


def test_restarts_for_ever(session, path):
    actor = Plain.options(max_restarts=-1).remote(0, path)
    for number in range(1, 6):
        assert back(actor) == (0, number)
        kill(actor)
    assert back(actor) == (0, 6)


def test_calls_are_made_again_in_order(session, path):
    actor = Plain.options(max_restarts=1, max_task_retries=1).remote()
    refs = [actor.die.remote(path), *(actor.add.remote(1) for _ in range(50))]
    assert get(refs) == ["survived", *range(1, 51)]


def test_calls_are_made_again_as_often_as_the_method_says(session, path):
    actor = Plain.options(max_restarts=-1).remote(0, path)
    with pytest.raises(ActorUnavailableError):
        get(actor.die.options(max_task_retries=2).remote())
    assert back(actor) == (0, 4)


def test_retries_end_with_the_restarts(session):
    actor = Plain.options(max_restarts=2, max_task_retries=-1).remote()
    with pytest.raises(ActorDiedError):
        get(actor.die.remote())


def test_a_call_behind_a_reference_survives_a_restart(session, path, until):
    actor, other = Plain.options(max_restarts=1).remote(1), Plain.remote()
    get(actor.state.remote())
    slow = other.wait.remote(path, until, 5)
    ref = actor.add.remote(slow)
    runtime.kill(actor, no_restart=False)
    # Only a death that is known: what is sent before that may be lost.
    wait_until(lambda: state.list_events(filters=[("kind", "=", "ACTOR_RESTARTED")]))
    wait_until(lambda: events(path))
    release(until)
    assert get(ref) == 6


@pytest.mark.parametrize("kind", [Plain, Async, Threaded])
def test_kill_may_leave_a_restart(session, kind, path):
    actor = kind.options(max_restarts=1).remote(0, path)
    get(actor.echo.remote(1))
    runtime.kill(actor, no_restart=False)
    wait_until(lambda: events(path) == 2)
    assert back(actor) == (0, 2)
    runtime.kill(actor)
    with pytest.raises(ActorDiedError, match="kill"):
        get(actor.echo.remote(1))
    assert events(path) == 2


def test_kill_without_restarts_left_is_the_end(session):
    actor = Plain.remote()
    runtime.kill(actor, no_restart=False)
    with pytest.raises(ActorDiedError):
        get(actor.echo.remote(1))


def test_a_graph_stays_broken_until_compiled_again(session, path):
    actor, other = Plain.options(max_restarts=1).remote(0, path), Plain.remote()

    def compiled():
        with InputNode() as inp:
            return other.work.bind(actor.work.bind(inp)).experimental_compile()

    dag = compiled()
    assert dag.execute(1).get(timeout=LONG_S) == "1mm"
    kill(actor)
    with pytest.raises(GraphActorDiedError, match="SIGKILL"):
        dag.execute(2).get(timeout=LONG_S)
    assert back(actor) == (0, 2)
    with pytest.raises(GraphActorDiedError, match="SIGKILL"):
        dag.execute(3).get(timeout=LONG_S)
    dag.teardown()
    again = compiled()
    assert again.execute(4).get(timeout=LONG_S) == "4mm"
    again.teardown()


def test_calls_that_are_left_when_the_last_handle_goes_survive_a_death(session, path, until):
    actor = Plain.options(max_restarts=1, max_task_retries=1).remote(5, path)
    assert get(actor.add.remote(1)) == 6
    refs = [actor.die.remote(until), actor.state.remote()]
    del actor
    assert get(refs) == ["survived", (5, 2)]


def test_an_actor_without_handles_is_not_made_again_for_nothing(session, path):
    actor = Plain.options(max_restarts=1).remote(5, path)
    assert get(actor.add.remote(1)) == 6
    refs = [actor.die.remote(), actor.state.remote()]
    del actor
    for ref in refs:
        with pytest.raises(ActorDiedError):
            get(ref)
    assert events(path) == 1


# --- exceptions


def test_methods_are_called_again_after_exceptions(session, path):
    actor = Plain.remote()
    method = actor.raise_times.options(max_task_retries=2, retry_exceptions=True)
    assert get(method.remote(path, 2)) == 3


def test_only_the_exceptions_named_count(session, path):
    actor = Plain.remote()
    method = actor.raise_times.options(max_task_retries=5, retry_exceptions=[ValueError])
    with pytest.raises(KeyError, match="attempt 1"):
        get(method.remote(path, 2))
    method = actor.raise_times.options(max_task_retries=5, retry_exceptions=[KeyError])
    assert get(method.remote(path, 2)) in (2, 3)


def test_without_retries_exceptions_are_final(session, path):
    actor = Plain.remote()
    with pytest.raises(KeyError, match="attempt 1"):
        get(actor.raise_times.options(retry_exceptions=True).remote(path, 2))


def test_attempts_run_out(session, path):
    actor = Plain.remote()
    method = actor.raise_times.options(max_task_retries=2, retry_exceptions=True)
    with pytest.raises(KeyError, match="attempt 3"):
        get(method.remote(path, 10))


# --- ends


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Plain, "leave"), (Threaded, "leave"), (Async, "leave"), (Async, "leave_async")],
)
def test_exit_actor_is_the_end_whatever_restarts_are_left(session, kind, method, path):
    actor = kind.options(max_restarts=5).remote(0, path)
    pid = get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        get(getattr(actor, method).remote())
    assert wait_until_dead([pid]) == []
    with pytest.raises(ActorDiedError):
        get(actor.echo.remote(1))
    assert events(path) == 1


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Plain, "exit"), (Threaded, "exit"), (Async, "exit"), (Async, "exit_async")],
)
def test_sys_exit_ends_the_actor(session, kind, method):
    actor = kind.remote()
    with pytest.raises(ActorDiedError, match="3"):
        get(getattr(actor, method).remote(3))


def test_exit_actor_is_for_actors(session):
    with pytest.raises(TypeError, match="driver"):
        runtime.actor.exit_actor()
    with pytest.raises(TypeError, match="task"):
        get(subjects.leave_task.remote())


def test_ray_terminate_serves_what_came_before(session):
    actor = Plain.options(max_restarts=5).remote()
    refs = [actor.add.remote(1) for _ in range(10)]
    actor.__ray_terminate__.remote()
    assert get(refs) == list(range(1, 11))
    with pytest.raises(ActorDiedError):
        get(actor.add.remote(1))
