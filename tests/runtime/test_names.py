"""Named and detached actors, and handles in other processes."""

from __future__ import annotations

import gc
import os
import pickle
import signal

import pytest

import runtime
from runtime.exceptions import ActorAlreadyExistsError, ActorDiedError
from tests.live import LONG_S, wait_until
from tests.runtime import subjects
from tests.runtime.actors import is_alive, wait_until_dead
from tests.runtime.subjects import Plain, events

pytestmark = pytest.mark.proc


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


@pytest.fixture
def paths(tmp_path):
    return str(tmp_path / "begun"), str(tmp_path / "until")


def release(paths):
    with open(paths[1], "w"):  # noqa: PTH123  as short as it gets
        pass


def test_an_actor_is_found_by_its_name(session):
    actor = Plain.options(name="one").remote(3)
    found = runtime.get_actor("one")
    assert found == actor
    assert get(found.add.remote(1)) == 4
    assert get(subjects.call_named.remote("one")) == (4, 1)
    with pytest.raises(AttributeError):
        found.nothing_like_it.remote()


def test_names_are_unique_in_their_namespace(session):
    one = Plain.options(name="one").remote(1)
    other = Plain.options(name="one", namespace="other").remote(2)
    assert runtime.get_actor("one") == one
    assert runtime.get_actor("one", "other") == other
    assert get(subjects.call_named.remote("one", "other")) == (2, 1)
    with pytest.raises(ActorAlreadyExistsError, match="'one'.*get_if_exists"):
        Plain.options(name="one").remote()
    with pytest.raises(ActorAlreadyExistsError):
        Plain.options(name="one", namespace="other").remote()
    assert get(one.state.remote()) == (1, 1)


def test_the_sessions_namespace_is_the_default():
    with runtime.init(namespace="mine"):
        actor = Plain.options(name="one").remote()
        assert runtime.get_actor("one", "mine") == actor
        with pytest.raises(ValueError, match="other"):
            runtime.get_actor("one", "other")


def test_get_if_exists(session):
    made = Plain.options(name="one", get_if_exists=True).remote(1)
    found = Plain.options(name="one", get_if_exists=True).remote(2)
    assert made == found
    assert get(found.state.remote()) == (1, 1)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [("", ValueError, "empty"), (1, TypeError, "str"), ("none", ValueError, "'one'")],
)
def test_mistakes(session, name, kind, text):
    actor = Plain.options(name="one").remote()
    with pytest.raises(kind, match=text):
        runtime.get_actor(name)
    assert get(actor.echo.remote(1)) == 1


def test_a_name_is_free_after_a_death(session):
    actor = Plain.options(name="one").remote(1)
    runtime.kill(actor)
    with pytest.raises(ValueError, match="one"):
        runtime.get_actor("one")
    again = Plain.options(name="one").remote(2)
    assert get(runtime.get_actor("one").state.remote()) == (2, 1)
    assert again != actor


def test_a_name_is_free_when_the_last_handle_went(session):
    actor = Plain.options(name="one").remote(1)
    pid = get(actor.pid.remote())
    del actor
    gc.collect()
    with pytest.raises(ValueError, match="one"):
        runtime.get_actor("one")
    assert wait_until_dead([pid]) == []
    assert get(Plain.options(name="one").remote(2).state.remote()) == (2, 1)


def test_a_failed_constructor_does_not_keep_the_name(session):
    actor = Plain.options(name="one").remote(0, "/dev/null", 0)
    with pytest.raises(ActorDiedError):
        get(actor.echo.remote(1))
    assert get(Plain.options(name="one").remote(2).state.remote()) == (2, 1)


def test_a_restarted_actor_keeps_its_name(session):
    actor = Plain.options(name="one", max_restarts=1, max_task_retries=-1).remote(1)
    pid = get(actor.pid.remote())
    runtime.kill(actor, no_restart=False)
    assert wait_until_dead([pid]) == []
    assert runtime.get_actor("one") == actor
    assert get(runtime.get_actor("one").state.remote()) == (1, 1)


def test_detached_actors_outlive_their_handles_not_the_session():
    with runtime.init():
        actor = Plain.options(name="one", lifetime="detached").remote(5)
        pid = get(actor.pid.remote())
        del actor
        gc.collect()
        assert get(runtime.get_actor("one").state.remote()) == (5, 1)
        assert is_alive(pid)
        assert get(subjects.name_one.remote("two")) == (7, 1)
        assert get(runtime.get_actor("two").state.remote()) == (7, 1)
        runtime.kill(runtime.get_actor("two"))
        with pytest.raises(ValueError, match="two"):
            runtime.get_actor("two")
    assert wait_until_dead([pid]) == []


# --- handles


def test_handles_are_equal_wherever_they_have_been(session):
    actor, other = Plain.remote(), Plain.remote()
    back = get(other.echo.remote(actor))
    assert back == actor
    assert hash(back) == hash(actor)
    assert {actor, back, pickle.loads(pickle.dumps(actor))} == {actor}
    assert back != other
    assert get(back.add.remote(2)) == 2


def test_a_handle_in_another_actor_keeps_the_actor_alive(session):
    actor, holder = Plain.remote(), Plain.remote()
    pid = get(actor.pid.remote())
    get(holder.hold.remote([actor]))
    del actor
    gc.collect()
    assert get(holder.echo.remote(1)) == 1
    assert is_alive(pid)
    get(holder.release.remote())
    assert wait_until_dead([pid], LONG_S) == []
    assert get(holder.echo.remote(1)) == 1


def test_a_handle_in_a_process_that_is_killed_goes_with_it(session):
    actor, holder = Plain.remote(), Plain.remote()
    pid, holder_pid = get([actor.pid.remote(), holder.pid.remote()])
    get(holder.hold.remote([actor]))
    del actor
    gc.collect()
    os.kill(holder_pid, signal.SIGKILL)
    assert wait_until_dead([pid, holder_pid], LONG_S) == []


def test_a_handle_in_a_tasks_arguments_keeps_the_actor_alive(session, paths):
    actor = Plain.remote()
    pid = get(actor.pid.remote())
    ref = subjects.hold_until.remote([actor], *paths)
    del actor
    gc.collect()
    wait_until(lambda: events(paths[0]))
    assert is_alive(pid)
    release(paths)
    assert get(ref) == 1
    assert wait_until_dead([pid], LONG_S) == []


def test_a_handle_in_an_object_keeps_the_actor_alive(session):
    actor = Plain.remote()
    pid = get(actor.pid.remote())
    ref = runtime.put([actor])
    del actor
    gc.collect()
    assert get(get(ref)[0].echo.remote(1)) == 1
    del ref
    gc.collect()
    assert wait_until_dead([pid], LONG_S) == []
