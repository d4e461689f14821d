"""Actors that run several calls at once: threads, groups, coroutines."""

from __future__ import annotations

import pytest

import runtime
from compiled_dag import InputNode
from runtime.exceptions import ActorDiedError, PendingCallsLimitError, TaskError
from tests.live import LONG_S, wait_until
from tests.runtime.actors import wait_until_dead
from tests.runtime.subjects import (
    Async,
    AsyncGrouped,
    ExitsInConstructor,
    Grouped,
    Plain,
    Threaded,
    echo_task,
    events,
)

pytestmark = pytest.mark.proc


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


@pytest.fixture
def paths(tmp_path):
    return str(tmp_path / "begun"), str(tmp_path / "until")


def release(paths):
    with open(paths[1], "w"):  # noqa: PTH123  as short as it gets
        pass


# --- coroutines


def test_a_thousand_coroutines_run_at_once(session):
    actor = Async.remote()
    assert get([actor.meet.remote(1000) for _ in range(1000)]) == [1000] * 1000


def test_max_concurrency_limits_coroutines(session):
    actor = Async.options(max_concurrency=3).remote()
    assert max(get([actor.pass_through.remote(5) for _ in range(50)])) == 3


def test_one_coroutine_at_a_time_keeps_the_order(session):
    actor = Async.options(max_concurrency=1).remote()
    assert get([actor.add.remote(1) for _ in range(100)]) == list(range(1, 101))


def test_coroutines_and_sync_methods_share_one_loop_that_the_constructor_saw(session):
    actor = Async.remote()
    assert get([actor.on_loop.remote(), actor.sync_on_loop.remote()]) == [True, True]
    assert get(actor.thread.remote())[0] is False


def test_references_are_awaited_inside_a_coroutine(session, paths):
    actor, other = Async.remote(), Plain.remote()
    ref = other.wait.remote(*paths, 5)
    waiting = [actor.await_ref.remote([ref]), actor.get_in_thread.remote([ref])]
    assert get(actor.echo.remote(1)) == 1
    release(paths)
    assert get(waiting) == [5, 5]


def test_many_references_are_gathered(session):
    refs = [echo_task.remote(number) for number in range(50)]
    assert get(Async.remote().gather.remote(refs)) == list(range(50))


def test_a_coroutine_calls_another_actor_and_its_own(session):
    actor = Async.remote()
    assert get(actor.call_and_await.remote([Plain.remote()], 1)) == 1
    assert get(actor.call_and_await.remote([actor], 2)) == 2


def test_an_awaited_failure_raises_in_the_coroutine(session):
    ref = Plain.remote().fail.remote("inner")
    with pytest.raises(ValueError, match="inner"):
        get(Async.remote().await_ref.remote([ref]))


@pytest.mark.parametrize("method", ["fail", "fail_async"])
def test_exceptions_of_an_async_actor(session, method):
    actor = Async.remote()
    with pytest.raises(ValueError, match=rf"Async\.{method} on actor Async\(\d+\).*boom") as caught:
        get(getattr(actor, method).remote())
    assert isinstance(caught.value, TaskError)
    assert get(actor.echo.remote(1)) == 1


def test_asynchronous_generators(session):
    actor = Async.remote()
    assert get(list(actor.items_async.remote(20))) == list(range(20))
    refs = list(actor.items_async_then_fail.remote(3))
    assert get(refs[:3]) == [0, 1, 2]
    with pytest.raises(ValueError, match="after the items"):
        get(refs[3])


def test_a_failing_constructor_of_an_async_actor(session):
    with pytest.raises(ActorDiedError, match="constructor number 0 fails"):
        get(Async.remote(0, "/dev/null", 0).echo.remote())


def test_sys_exit_in_the_constructor_of_an_async_actor(session):
    with pytest.raises(ActorDiedError):
        get(ExitsInConstructor.remote().nothing.remote())


@pytest.mark.parametrize("kind", [Async, Threaded, Grouped])
def test_calls_of_a_handle_that_is_gone_are_served(session, kind, paths):
    ref = kind.remote().wait.remote(*paths)
    wait_until(lambda: events(paths[0]))
    release(paths)
    assert get(ref) == "waited"
    assert get(kind.remote().echo.remote(1)) == 1


def test_coroutines_of_a_handle_that_is_gone_are_served(session, paths):
    actor = Async.remote()
    pid = get(actor.pid.remote())
    refs = [actor.wait_async.remote(*paths, number) for number in range(10)]
    del actor
    wait_until(lambda: events(paths[0]) == 10)
    release(paths)
    assert get(refs) == list(range(10))
    assert wait_until_dead([pid]) == []


# --- threads


def test_threads_run_calls_at_once(session):
    actor = Threaded.remote()
    assert sorted(get([actor.meet.remote() for _ in range(4)])) == [0, 1, 2, 3]
    assert get(actor.thread.remote())[0] is False


def test_max_concurrency_limits_threads(session, paths):
    actor = Threaded.options(max_concurrency=2).remote()
    refs = [actor.wait.remote(*paths) for _ in range(6)]
    wait_until(lambda: events(paths[0]) == 2)
    assert runtime.wait(refs, num_returns=6, timeout=0)[0] == []
    assert events(paths[0]) == 2
    release(paths)
    assert get(refs) == ["waited"] * 6


def test_a_threaded_actor_calls_itself(session):
    actor = Threaded.remote()
    assert get(actor.forward.remote([actor], "forward", [actor], "echo", 3)) == 3


def test_exceptions_on_threads(session):
    actor = Threaded.remote()
    refs = [actor.fail.remote(str(number)) for number in range(20)]
    for number, ref in enumerate(refs):
        with pytest.raises(ValueError, match=str(number)):
            get(ref)


def test_many_threads_get_at_once(session):
    actor = Threaded.options(max_concurrency=16).remote()
    refs = [echo_task.remote(number) for number in range(100)]
    assert get([actor.get.remote([ref]) for ref in refs]) == list(range(100))


def test_results_of_any_size_from_many_threads_stay_whole(session):
    actor = Threaded.options(max_concurrency=8).remote()
    values = [bytes([number % 256]) * (number * 1500) for number in range(150)]
    assert get([actor.echo.remote(value) for value in values]) == values


# --- groups


def test_groups_have_limits_of_their_own(session, paths):
    actor = Grouped.remote()
    begun, until = paths
    io = [actor.io.remote(begun, until) for _ in range(4)]
    one = [actor.one.remote(begun + "1", until) for _ in range(2)]
    wait_until(lambda: (events(begun), events(begun + "1")) == (2, 1))
    assert get(actor.echo.remote("default group is free")) == "default group is free"
    assert (events(begun), events(begun + "1")) == (2, 1)
    release(paths)
    assert all("io" in name for name in get(io))
    assert all("one" in name for name in get(one))


def test_a_call_chooses_its_group(session):
    actor = Grouped.remote()
    assert "io" in get(actor.name.options(concurrency_group="io").remote())
    assert "io" not in get(actor.name.remote())


@pytest.mark.parametrize("kind", [Grouped, AsyncGrouped, Plain, Async])
def test_an_unknown_group_is_an_error_of_the_call(session, kind):
    actor = kind.remote()
    with pytest.raises(ValueError, match="no concurrency group 'web'") as caught:
        get(actor.echo.options(concurrency_group="web").remote(1))
    assert "\0" not in str(caught.value)
    assert get(actor.echo.remote(1)) == 1


def test_coroutines_in_groups(session, paths):
    actor = AsyncGrouped.remote()
    refs = [
        actor.wait_async.options(concurrency_group="io").remote(*paths, number)
        for number in range(3)
    ]
    wait_until(lambda: events(paths[0]) == 1)
    assert get(actor.echo.remote(1)) == 1
    assert events(paths[0]) == 1
    release(paths)
    assert get(refs) == [0, 1, 2]


# --- plain actors, and graphs


def test_plain_actors_run_one_call_at_a_time_on_the_main_thread(session):
    actor = Plain.remote()
    assert get([actor.add.remote(1) for _ in range(200)]) == list(range(1, 201))
    assert get(actor.thread.remote())[0] is True


@pytest.mark.parametrize("kind", [Plain, Threaded, Async, Grouped])
def test_steps_of_graphs_run_on_the_main_thread_beside_calls(session, kind):
    first, second = kind.remote(), kind.remote()
    with InputNode() as inp:
        dag = second.work.bind(first.work.bind(inp)).experimental_compile()
    for number in range(20):
        refs = [first.thread.remote(), second.add.remote(1)]
        assert dag.execute(number).get(timeout=LONG_S) == f"{number}mm"
        assert get(refs[0])[0] is (kind is Plain)
        assert get(refs[1]) == number + 1
    dag.teardown()
    assert get(first.echo.remote(1)) == 1


def test_a_graph_runs_while_calls_of_its_actor_wait(session, paths):
    actor = Threaded.remote()
    ref = actor.wait.remote(*paths)
    wait_until(lambda: events(paths[0]))
    with InputNode() as inp:
        dag = actor.work.bind(inp).experimental_compile()
    assert dag.execute(1).get(timeout=LONG_S) == "1m"
    release(paths)
    assert get(ref) == "waited"
    dag.teardown()


@pytest.mark.parametrize("kind", [Threaded, Async, Grouped, AsyncGrouped])
def test_a_call_that_arrives_during_a_step_is_run_beside_it(session, kind, paths):
    actor = kind.remote()
    begun, until = paths
    with InputNode() as inp:
        dag = actor.wait.bind(inp.begun, inp.until).experimental_compile()
    ref = dag.execute(begun=begun, until=until)
    wait_until(lambda: events(begun))
    assert get(actor.thread.remote())[0] is False
    assert get(actor.echo.remote(bytes(1 << 20))) == bytes(1 << 20)
    with pytest.raises(ValueError, match="during a step"):
        get(actor.fail.remote("during a step"))
    assert not runtime.wait([ref], timeout=0)[0]
    release(paths)
    assert ref.get(timeout=LONG_S) == "waited"
    dag.teardown()


def test_calls_begin_in_their_order_whatever_steps_run(session):
    actor = Async.options(max_concurrency=1).remote()
    with InputNode() as inp:
        dag = actor.work.bind(inp).experimental_compile()
    steps = [dag.execute(number) for number in range(9)]
    calls = []
    for step in steps:
        calls += [actor.add.remote(1) for _ in range(40)]
        step.get(timeout=LONG_S)
    assert get(calls) == list(range(1, len(calls) + 1))
    dag.teardown()


def test_a_plain_actor_runs_a_call_that_arrives_during_a_step_after_it(session, paths):
    actor = Plain.remote()
    with InputNode() as inp:
        dag = actor.wait.bind(inp.begun, inp.until).experimental_compile()
    ref = dag.execute(begun=paths[0], until=paths[1])
    wait_until(lambda: events(paths[0]))
    call = actor.echo.remote(1)
    assert runtime.wait([call], timeout=0.2)[0] == []
    release(paths)
    assert (ref.get(timeout=LONG_S), get(call)) == ("waited", 1)
    dag.teardown()


# --- max_pending_calls


@pytest.mark.parametrize("kind", [Plain, Async, Threaded])
def test_too_many_unanswered_calls_are_refused(session, kind, paths):
    actor = kind.options(max_pending_calls=2).remote()
    refs = [actor.wait.remote(*paths), actor.wait.remote(*paths)]
    with pytest.raises(PendingCallsLimitError, match="max_pending_calls=2"):
        actor.echo.remote(1)
    release(paths)
    get(refs)
    assert get(actor.echo.remote(2)) == 2


def test_the_constructor_is_no_pending_call(session):
    actor = Plain.options(max_pending_calls=1).remote()
    assert get(actor.echo.remote(1)) == 1


def test_too_many_calls_from_another_actor(session, paths):
    actor = Plain.options(max_pending_calls=1).remote()
    get(actor.echo.remote(0))
    ref = actor.wait.remote(*paths)
    other = Plain.remote()
    with pytest.raises(PendingCallsLimitError):
        get(other.forward.remote([actor], "echo", 1))
    release(paths)
    assert get(ref) == "waited"
    assert get(other.forward.remote([actor], "echo", 1)) == 1
