"""Cancelling tasks and calls in every state."""

from __future__ import annotations

import contextlib
import time

import pytest

import runtime
from compiled_dag import InputNode
from runtime import ObjectRefGenerator, lifecycle
from runtime.exceptions import TaskCancelledError, TaskError
from tests.live import LONG_S, wait_until
from tests.runtime import subjects
from tests.runtime.actors import Worker
from tests.runtime.subjects import Async, Grouped, Plain, Threaded, events

pytestmark = pytest.mark.proc


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def assert_cancelled(ref):
    with pytest.raises((TaskCancelledError, TaskError)) as caught:
        get(ref)
    error = caught.value
    assert isinstance(error, TaskCancelledError) or isinstance(error.cause, TaskCancelledError)


@pytest.fixture
def begun(tmp_path):
    return str(tmp_path / "begun")


@pytest.fixture
def until(tmp_path):
    return str(tmp_path / "until")


def release(until):
    with open(until, "w"):  # noqa: PTH123  as short as it gets
        pass


# --- calls of actors


@pytest.mark.parametrize("method", ["wait", "sleep", "spin"])
def test_a_call_that_runs_is_interrupted(session, method, begun, until):
    actor = Plain.remote(1)
    ref = getattr(actor, method).remote(*[begun, until][: 2 if method == "wait" else 1])
    wait_until(lambda: events(begun))
    runtime.cancel(ref)
    assert_cancelled(ref)
    assert get(actor.state.remote()) == (1, 1)


def test_a_call_behind_what_a_graph_asks_of_an_actor_not_yet_made_is_cancelled(session, until):
    actor = Worker.remote(Worker.remote().wait_for_file.remote(until))
    host = lifecycle.current()
    asked = host.submit(actor._runtime_process.actor_id, nothing, b"")
    ref = actor.add.remote(1)
    runtime.cancel(ref)
    assert_cancelled(ref)
    release(until)
    assert asked.result(time.monotonic() + LONG_S) == b""


def nothing(_context, _payload, _fds):
    """Be what a graph asks of an actor."""
    return b""


def test_a_call_that_waits_in_get_is_interrupted(session, begun, until):
    actor, other = Plain.remote(), Plain.remote()
    slow = other.wait.remote(begun + "1", until)
    ref = actor.get.remote([slow], begun)
    wait_until(lambda: events(begun) and events(begun + "1"))
    runtime.cancel(ref)
    assert_cancelled(ref)
    release(until)
    assert get(slow) == "waited"
    assert get(actor.get.remote([slow])) == "waited"


def test_calls_sent_and_not_begun_never_run(session, begun, until):
    actor = Plain.remote()
    first = actor.wait.remote(begun, until)
    refs = [actor.add.remote(1) for _ in range(10)]
    wait_until(lambda: events(begun))
    for ref in refs[::2]:
        runtime.cancel(ref)
    release(until)
    assert get(first) == "waited"
    assert get(refs[1::2]) == [1, 2, 3, 4, 5]
    for ref in refs[::2]:
        assert_cancelled(ref)


@pytest.mark.parametrize("method", ["spin", "sleep"])
def test_all_calls_cancelled_at_once_the_running_one_first(session, method, begun):
    actor = Plain.remote()
    for turn in range(1, 6):
        refs = [getattr(actor, method).remote(begun), *(actor.add.remote(1) for _ in range(20))]
        wait_until(lambda turn=turn: events(begun) == turn)
        for ref in refs:
            runtime.cancel(ref)
        assert_cancelled(refs[0])
        for ref in refs[1:]:  # they may have begun, and ended, before it was their turn
            with contextlib.suppress(TaskCancelledError, TaskError):
                get(ref)
    assert get(actor.echo.remote(1)) == 1


def test_a_call_that_waits_for_its_arguments(session, begun, until):
    actor, other = Plain.remote(), Plain.remote()
    slow = other.wait.remote(begun, until)
    ref = actor.add.remote(slow)
    after = actor.add.remote(1)
    runtime.cancel(ref)
    assert_cancelled(ref)
    assert get(after) == 1
    release(until)
    assert get(slow) == "waited"


def test_a_call_right_after_it_was_made(session):
    actor = Plain.remote()
    for number in range(200):
        ref = actor.echo.remote(number)
        runtime.cancel(ref)
        with contextlib.suppress(TaskCancelledError, TaskError):
            assert get(ref) == number
    assert get(actor.echo.remote("whole")) == "whole"


def test_what_has_ended_stays_as_it_is(session):
    actor = Plain.remote()
    refs = [actor.echo.remote(1), subjects.echo_task.remote(2), runtime.put(3)]
    assert get(refs) == [1, 2, 3]
    for ref in refs:
        runtime.cancel(ref)
        runtime.cancel(ref)
    assert get(refs) == [1, 2, 3]


@pytest.mark.parametrize("kind", [Threaded, Grouped, Async])
def test_a_call_beside_others_is_interrupted(session, kind, begun, until):
    actor = kind.options(max_concurrency=2).remote()
    method = actor.wait_async if kind is Async else actor.wait
    kept, ref = method.remote(begun, until), method.remote(begun, until)
    wait_until(lambda: events(begun) == 2)
    runtime.cancel(ref)
    runtime.cancel(ref)
    assert_cancelled(ref)
    release(until)
    assert get(kept) == "waited"
    assert get([actor.echo.remote(number) for number in range(50)]) == list(range(50))


def test_a_coroutine_sees_the_cancellation(session, begun, until):
    actor = Async.remote()
    ref = actor.wait_async.remote(begun, until)
    wait_until(lambda: events(begun))
    runtime.cancel(ref)
    assert_cancelled(ref)
    assert get(actor.cancelled.remote()) is True


@pytest.mark.parametrize("kind", [Threaded, Async])
def test_calls_that_wait_for_room_are_cancelled(session, kind, begun, until):
    actor = kind.options(max_concurrency=1).remote()
    method = actor.wait_async if kind is Async else actor.wait
    first = method.remote(begun, until)
    wait_until(lambda: events(begun))
    refs = [actor.add.remote(1) for _ in range(10)]
    for ref in refs[::2]:
        runtime.cancel(ref)
    release(until)
    assert get(first) == "waited"
    assert get(refs[1::2]) == [1, 2, 3, 4, 5]
    for ref in refs[::2]:
        assert_cancelled(ref)


@pytest.mark.parametrize("kind", [Threaded, Async])
def test_cancel_right_after_the_call_always_ends_it(session, kind):
    actor = kind.remote()
    get(actor.echo.remote(0))
    for _ in range(300):
        ref = (actor.on_loop if kind is Async else actor.echo).remote()
        runtime.cancel(ref)
        with contextlib.suppress(TaskCancelledError, TaskError):
            get(ref)
    assert get([actor.echo.remote(number) for number in range(100)]) == list(range(100))


@pytest.mark.parametrize("kind", [Plain, Threaded, Async])
def test_messages_stay_whole_when_senders_of_large_results_are_cancelled(session, kind):
    actor = kind.remote()
    value = b"x" * 90_000
    for _ in range(15):
        refs = [actor.echo.remote(value) for _ in range(10)]
        for ref in refs[::-1]:
            runtime.cancel(ref)
        for ref in refs:
            with contextlib.suppress(TaskCancelledError, TaskError):
                assert get(ref) == value
    assert get(actor.echo.remote("whole")) == "whole"


def test_force_is_for_tasks_only(session, begun, until):
    actor = Plain.remote()
    ref = actor.wait.remote(begun, until)
    with pytest.raises(ValueError, match="runtime.kill"):
        runtime.cancel(ref, force=True)
    release(until)
    assert get(ref) == "waited"


def test_what_cannot_be_cancelled(session):
    with pytest.raises(TypeError, match="ObjectRef"):
        runtime.cancel(1)
    actor = Plain.remote()
    with InputNode() as inp:
        dag = actor.echo.bind(inp).experimental_compile()
    ref = dag.execute(1)
    with pytest.raises(TypeError, match="graph"):
        runtime.cancel(ref)
    assert ref.get(timeout=LONG_S) == 1
    dag.teardown()


def test_a_call_with_retries_is_not_made_again(session, begun):
    actor = Plain.options(max_restarts=1, max_task_retries=5).remote()
    ref = actor.spin.options(retry_exceptions=True).remote(begun)
    wait_until(lambda: events(begun))
    runtime.cancel(ref)
    assert_cancelled(ref)
    assert get(actor.echo.remote(1)) == 1
    assert events(begun) == 1


def test_an_actor_cancels_a_reference_made_elsewhere(session, begun):
    target = Plain.remote()
    ref = target.spin.remote(begun)
    wait_until(lambda: events(begun))
    get(Plain.remote().cancel.remote([ref]))
    assert_cancelled(ref)


# --- tasks


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("task", ["wait_task", "sleep_task", "spin_task"])
def test_a_task_that_runs_is_interrupted(session, task, force, begun, until):
    function = getattr(subjects, task)
    ref = function.remote(*[begun, until][: 2 if task == "wait_task" else 1])
    wait_until(lambda: events(begun))
    runtime.cancel(ref, force=force)
    runtime.cancel(ref, force=force)
    assert_cancelled(ref)
    assert get(subjects.echo_task.remote(1)) == 1
    assert events(begun) == 1


def test_all_tasks_cancelled_at_once(session, begun):
    for turn in range(1, 4):
        refs = [subjects.spin_task.remote(begun)]
        wait_until(lambda turn=turn: events(begun) == turn)
        refs += [subjects.echo_task.remote(number) for number in range(40)]
        for ref in refs:
            runtime.cancel(ref)
        assert_cancelled(refs[0])
        for number, ref in enumerate(refs[1:]):
            with contextlib.suppress(TaskCancelledError, TaskError):
                assert get(ref) == number


def test_a_task_that_waits_for_its_arguments(session, begun, until):
    slow = subjects.wait_task.remote(begun, until)
    ref = subjects.echo_task.remote(slow)
    runtime.cancel(ref)
    assert_cancelled(ref)
    release(until)
    assert get(slow) == "waited"


def test_cancelling_what_a_task_waits_for_fails_it(session, begun, until):
    slow = subjects.wait_task.remote(begun, until)
    ref = subjects.echo_task.remote(slow)
    wait_until(lambda: events(begun))
    runtime.cancel(slow)
    assert_cancelled(ref)


@pytest.mark.parametrize("recursive", [True, False])
def test_children_are_cancelled_if_asked_for(session, recursive, begun, until):
    ref = subjects.parent_task.remote(begun, until)
    wait_until(lambda: events(begun))
    runtime.cancel(ref, recursive=recursive)
    assert_cancelled(ref)
    release(until)
    assert get(subjects.echo_task.remote(1)) == 1


def test_a_task_cancels_what_another_process_made(session, begun, until):
    (ref,) = get(subjects.make_ref.remote(begun, until))
    wait_until(lambda: events(begun))
    get(subjects.cancel_task.remote([ref]))
    assert_cancelled(ref)


def test_messages_stay_whole_when_a_busy_sender_is_cancelled(session, begun):
    for turn in range(1, 11):
        ref = subjects.send_large.remote(begun, 1_000_000)
        wait_until(lambda turn=turn: events(begun) == turn)
        runtime.cancel(ref)
        assert_cancelled(ref)
        assert get(subjects.echo_task.remote("whole")) == "whole"


def in_a_task():
    return subjects.finalize_task.remote


def beside_others():
    actor = Threaded.remote()
    return lambda begun: actor.finalize.remote(begun)  # noqa: PLW0108  it keeps the actor


@pytest.mark.parametrize("made", [in_a_task, beside_others])
def test_what_is_cancelled_in_a_finalizer_ends_all_the_same(session, made, begun, capfd):
    finalize = made()
    for turn in range(3):
        ref = finalize(f"{begun} {turn}")
        wait_until(lambda turn=turn: events(f"{begun} {turn}"))
        runtime.cancel(ref)
        assert_cancelled(ref)
        assert get(subjects.echo_task.remote(turn)) == turn
    assert "Exception ignored" not in capfd.readouterr().err


@pytest.mark.parametrize("what", [lambda generator: generator, ObjectRefGenerator.completed])
def test_a_generator_is_cancelled_in_the_middle(session, what, begun):
    generator = subjects.items_for_ever.remote(begun)
    assert get(next(generator)) == 0
    wait_until(lambda: events(begun))
    runtime.cancel(what(generator))
    refs = list(generator)
    assert get(refs[:-1]) == list(range(1, len(refs)))
    assert_cancelled(refs[-1])


def test_a_worker_whose_queued_tasks_are_all_cancelled_gives_its_cpus_back(no_leaks, begun, until):
    with runtime.init(num_cpus=1):
        first = subjects.wait_task.remote(begun, until)
        wait_until(lambda: events(begun))
        refs = [subjects.echo_task.remote(i) for i in range(40)]  # more than a worker is sent
        for ref in reversed(refs):  # those that it was sent last: they are queued again, and ended
            runtime.cancel(ref)
        release(until)
        assert get(first)
        for ref in refs:
            assert_cancelled(ref)
        wait_until(lambda: runtime.available_resources()["CPU"] == 1)
        assert get(Worker.options(num_cpus=1).remote().pid.remote())
