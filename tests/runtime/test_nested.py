"""The session inside tasks and actors: submitting, waiting, blocking, futures."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

import runtime
from compiled_dag.errors import ActorDiedError, GetTimeoutError, WorkerCrashedError
from runtime import lifecycle
from tests.crew import wait_for_file
from tests.live import LONG_S, wait_until
from tests.runtime.actors import Worker

pytestmark = pytest.mark.proc


@pytest.fixture
def one_cpu(no_leaks):
    """A session with a single CPU."""
    with runtime.init(num_cpus=1):
        yield


@runtime.remote
def add(left, right=1):
    return left + right


@runtime.remote
def fail():
    raise ValueError("inside")


@runtime.remote
def count_down(number):
    return 0 if not number else 1 + runtime.get(count_down.remote(number - 1))


@runtime.remote
def tree(depth, width):
    if not depth:
        return 1
    return sum(runtime.get([tree.remote(depth - 1, width) for _ in range(width)]))


@runtime.remote
class Gate:
    """Counts; tasks ask it whether to go on."""

    def __init__(self):
        self.count = 0

    def pass_through(self):
        self.count += 1
        return self.count

    def seen(self):
        return self.count


@runtime.remote
class Client:
    """An actor that uses the session."""

    def total(self, numbers):
        return sum(runtime.get([add.remote(number) for number in numbers]))

    def ask(self, other, value):
        return runtime.get(other.echo.remote(value))

    def start(self):
        self.worker = Worker.remote(10)
        return runtime.get(self.worker.add.remote(1))

    def fail(self):
        return runtime.get(fail.remote())

    def threads(self, count):
        found = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(runtime.get(add.remote(n))))
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(found)


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


# --- put, get, wait -------------------------------------------------------------------------------


def test_put_get_and_wait_inside_a_task(session, tmp_path):
    @runtime.remote
    def use(path):
        ref = runtime.put([1, 2])
        assert runtime.get(ref) == [1, 2]
        assert runtime.get([ref, add.remote(1)]) == [[1, 2], 2]

        @runtime.remote
        def slow():
            wait_for_file(path)

        never = slow.remote()
        assert runtime.wait([never, ref], timeout=60) == ([ref], [never])
        assert runtime.wait([never], timeout=0) == ([], [never])
        with pytest.raises(GetTimeoutError):
            runtime.get(never, timeout=0)
        with pytest.raises(GetTimeoutError):
            runtime.get(never, timeout=0.01)
        Path(path).touch()
        return runtime.wait([never, ref], num_returns=2, timeout=60)[1]

    assert get(use.remote(str(tmp_path / "go"))) == []


def test_errors_pass_through_tasks_and_actors(session):
    @runtime.remote
    def outer():
        return runtime.get(fail.remote())

    with pytest.raises(ValueError, match="inside"):
        get(outer.remote())
    with pytest.raises(ValueError, match="inside"):
        get(Client.remote().fail.remote())

    @runtime.remote
    def caught():
        try:
            runtime.get(fail.remote())
        except ValueError as error:
            return type(error.__cause__ or error).__name__

    assert "ValueError" in get(caught.remote())


def test_deaths_are_seen_inside_tasks(session):
    @runtime.remote
    def use(worker):
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            runtime.get(worker.kill_itself.remote())

        @runtime.remote(max_retries=0)
        def leave():
            os._exit(4)

        with pytest.raises(WorkerCrashedError, match="code 4"):
            runtime.get(leave.remote())
        return True

    assert get(use.remote(Worker.remote()))


def test_actors_use_tasks_actors_and_threads(session):
    client, worker = Client.remote(), Worker.remote()
    assert get(client.total.remote([1, 2, 3])) == 9
    assert get(client.ask.remote(worker, [1])) == [1]
    assert get(client.start.remote()) == 11
    assert get(client.threads.remote(8)) == list(range(1, 9))


def test_resources_init_and_kill_inside_a_task(session):
    @runtime.remote
    def use(worker):
        assert runtime.is_initialized()
        runtime.shutdown()
        with pytest.raises(RuntimeError, match="part of a session"):
            runtime.init()
        runtime.kill(worker)
        with pytest.raises(ActorDiedError, match=r"runtime\.kill"):
            runtime.get(worker.echo.remote(1))
        return runtime.cluster_resources()

    assert get(use.remote(Worker.remote())) == runtime.cluster_resources()


def test_what_a_task_submits_outlives_it(session):
    @runtime.remote
    def submit():
        return [add.remote(index) for index in range(20)]

    assert get(get(submit.remote())) == list(range(1, 21))


# --- futures and coroutines -----------------------------------------------------------------------


def test_futures_inside_tasks_and_actors(session):
    @runtime.remote
    def use():
        futures = [add.remote(index).future() for index in range(5)]
        with pytest.raises(ValueError, match="inside"):
            fail.remote().future().result(60)
        return [future.result(60) for future in futures]

    assert get(use.remote()) == [1, 2, 3, 4, 5]
    assert (
        get(Worker.remote().__ray_call__.remote(lambda _: add.remote(1).future().result(60))) == 2
    )


def test_await_inside_a_task(session):
    @runtime.remote
    def use():
        async def total():
            return sum(await asyncio.gather(*[_awaited(index) for index in range(5)]))

        return asyncio.run(total())

    assert get(use.remote()) == 15
    assert get(use.remote()) == 15


async def _awaited(index):
    return await add.remote(index)


def test_a_worker_whose_task_made_a_future_takes_more_tasks(one_cpu):
    @runtime.remote
    def use():
        return add.remote(1).future().done()

    for _ in range(3):
        get(use.remote())
        assert get([add.remote(index) for index in range(40)]) == list(range(1, 41))
    wait_until(lambda: runtime.available_resources()["CPU"] == 1)


# --- no deadlock ----------------------------------------------------------------------------------


def test_deep_recursion_on_one_cpu(one_cpu):
    assert get(count_down.remote(25)) == 25


def test_deep_recursion_of_tasks_that_need_no_cpu(one_cpu):
    @runtime.remote(num_cpus=0)
    def down(number):
        return 0 if not number else 1 + runtime.get(down.remote(number - 1))

    assert get(down.remote(15)) == 15


def test_fan_out_in_fan_out_on_one_cpu(one_cpu):
    assert get(tree.remote(3, 4)) == 64
    assert get([tree.remote(2, 3) for _ in range(3)]) == [9] * 3


def test_tasks_wait_for_actors_and_actors_for_tasks_on_one_cpu(one_cpu):
    client = Client.remote()

    @runtime.remote
    def through(actor, number):
        return runtime.get(actor.total.remote([number]))

    assert get([through.remote(client, number) for number in range(10)]) == list(range(1, 11))


def test_a_task_that_polls_lets_those_behind_it_run(one_cpu):
    """What waits behind a waiting task goes elsewhere, even while some were taken back before."""
    gate = Gate.remote()

    @runtime.remote
    def wait_for(gate, count):
        while runtime.get(gate.seen.remote()) < count:
            pass

    @runtime.remote
    def push(gate):
        runtime.get(gate.pass_through.remote())

    for round_ in range(1, 5):
        refs = [wait_for.remote(gate, 20 * round_) for _ in range(4)]
        refs += [push.remote(gate) for _ in range(20)]
        get(refs)


def test_a_task_behind_a_long_one_uses_what_becomes_free(no_leaks, tmp_path):
    path = tmp_path / "go"

    @runtime.remote
    def long():
        wait_for_file(path)

    @runtime.remote
    def short():
        path.touch()

    with runtime.init(num_cpus=2):
        holder = Worker.options(num_cpus=1).remote()
        get(holder.pid.remote())
        first = long.remote()
        wait_until(lambda: first.source.worker is not None and first.source.worker.up)
        refs = [first, short.remote()]
        runtime.kill(holder)
        get(refs)


def test_a_burst_of_nested_work_from_many_places(session):
    clients = [Client.remote() for _ in range(3)]
    refs = [client.total.remote(range(30)) for client in clients for _ in range(5)]
    refs += [tree.remote(2, 3) for _ in range(5)]
    assert get(refs) == [465] * 15 + [9] * 5
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())


# --- CPUs -----------------------------------------------------------------------------------------


def test_a_waiting_task_lends_its_cpu_and_takes_it_back(one_cpu, tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"

    @runtime.remote
    def child():
        inside.touch()
        wait_for_file(outside)

    @runtime.remote
    def parent():
        runtime.get(child.remote())
        return runtime.available_resources()["CPU"]

    ref = parent.remote()
    wait_until(inside.exists)
    assert lifecycle.current().placement.ledger.available()["CPU"] == 0
    outside.touch()
    assert get(ref) == 0
    wait_until(lambda: runtime.available_resources()["CPU"] == 1)


def test_a_thread_of_a_task_that_waits_lends_nothing(one_cpu, tmp_path):
    path = tmp_path / "go"

    @runtime.remote(num_cpus=0)
    def slow():
        wait_for_file(path)

    @runtime.remote
    def use():
        thread = threading.Thread(target=lambda: runtime.get(slow.remote()))
        thread.start()
        free = runtime.available_resources()["CPU"]
        path.touch()
        thread.join()
        return free

    assert get(use.remote()) == 0
    assert get([add.remote(1) for _ in range(40)]) == [2] * 40
