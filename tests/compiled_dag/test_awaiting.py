"""Executions and results in coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading

import pytest

from compiled_dag import (
    CapacityExceededError,
    ChannelClosedError,
    CompiledDAGFuture,
    GraphActorDiedError,
    InputNode,
    MultiOutputNode,
    SubmitTimeoutError,
)
from tests.gates import PATIENCE_S, Background, Gate, compiled, one_method
from tests.graphs import Worker

get_many = CompiledDAGFuture.get_many


def run(coroutine):
    """Run a coroutine in a new event loop, bounded."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


@contextlib.contextmanager
def ticking():
    """Yield an event that the running loop sets again and again, unless it is blocked."""
    loop, tick = asyncio.get_running_loop(), asyncio.Event()

    def turn() -> None:
        tick.set()
        handle[0] = loop.call_later(0.001, turn)

    handle = [loop.call_soon(turn)]
    try:
        yield tick
    finally:
        handle[0].cancel()


async def turns_of(tick, count) -> None:
    """Wait until the loop has made some more turns."""
    for _ in range(count):
        tick.clear()
        await tick.wait()


# --- results --------------------------------------------------------------------------------------


def test_an_execution_is_awaited_for_its_future_and_that_for_the_value(host) -> None:
    async def use(graph):
        future = await graph.execute_async([1])
        assert isinstance(future, CompiledDAGFuture)
        assert await future == [1]
        assert await future is await future is future.get()
        assert future.done()
        assert future.result() == [1]
        assert future.exception() is None
        assert not future.cancelled()

    with compiled(host) as graph:
        run(use(graph))


def test_both_ways_are_mixed_in_any_order_and_refs_are_awaited_too(host) -> None:
    async def use(graph):
        refs = [graph.execute(0), await graph.execute_async(1), graph.execute(2)]
        assert await refs[2] == 2
        assert [ref.get(30) for ref in refs] == [0, 1, 2]
        refs = [graph.execute(number) for number in range(10)]
        return await asyncio.gather(*reversed(refs))

    with compiled(host) as graph:
        assert run(use(graph)) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_several_outputs_are_a_list_with_the_drivers_own_among_them(host) -> None:
    one, other = host.actor(Worker(1)), host.actor(Worker(2))
    with InputNode() as inp:
        output = MultiOutputNode([one.add.bind(inp), 7, other.add.bind(inp), inp])

    async def use(graph):
        return await asyncio.gather(*await graph.execute_async(1))

    with output.experimental_compile() as graph:
        assert run(use(graph)) == [2, 7, 3, 1]


def test_what_takes_long_is_waited_for_parked_by_any_number_of_tasks(host, gate) -> None:
    """Through gather, wait and wait_for, of one future and of several."""

    async def use(graph):
        loop = asyncio.get_running_loop()
        futures = [await graph.execute_async(number) for number in range(5)]
        await loop.run_in_executor(None, gate.wait_entered)
        with ticking() as tick:
            tasks = [asyncio.ensure_future(future) for future in (*futures, *futures)]
            pending = asyncio.create_task(_all_of(futures))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(futures[0], 0.01)
            assert not futures[0].done()
            with pytest.raises(asyncio.InvalidStateError):
                futures[0].result()
            with pytest.raises(asyncio.InvalidStateError):
                futures[0].exception()
            await turns_of(tick, 3)
            gate.opened.set()
            assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4] * 2
            assert await pending == {0, 1, 2, 3, 4}

    async def _all_of(futures):
        done, pending = await asyncio.wait(futures)
        assert not pending
        if sys.version_info >= (3, 11):
            assert done == set(futures)
        return {one.result() for one in done}

    with compiled(host, gate, "hold") as graph:
        run(use(graph))


def test_the_first_of_several_is_waited_for(host, gate) -> None:
    slow, quick = host.actor(gate), host.actor(Worker(1))
    with InputNode() as inp:
        output = MultiOutputNode([slow.hold.bind(inp), quick.add.bind(inp)])

    async def use(graph):
        late, soon = await graph.execute_async(1)
        await asyncio.wait([late, soon], return_when=asyncio.FIRST_COMPLETED)
        assert soon.done()
        assert not late.done()
        assert await soon == 2
        assert late._callbacks == []
        gate.opened.set()
        assert await late == 1

    with output.experimental_compile() as graph:
        run(use(graph))


def test_a_callback_is_called_with_the_future_unless_it_was_removed(host, gate) -> None:
    async def use(graph):
        future, called = await graph.execute_async(1), asyncio.Event()
        seen = []
        future.add_done_callback(seen.append)
        future.add_done_callback(lambda done: called.set() or seen.append(done))
        assert future.remove_done_callback(seen.append) == 1
        assert future.remove_done_callback(seen.append) == 0
        gate.opened.set()
        await called.wait()
        assert seen == [future]

    with compiled(host, gate, "hold") as graph:
        run(use(graph))


def test_several_loops_of_several_threads_await_one_future(host, gate) -> None:
    with compiled(host, gate, "hold") as graph:
        future = run(graph.execute_async(5))

        async def wait():
            return await future

        waiting = [Background(run, wait()) for _ in range(4)]
        waiting += [Background(future.get, -1)]
        gate.wait_entered()
        assert all(one.running() for one in waiting)
        gate.opened.set()
        assert [one.result() for one in waiting] == [5] * 5
        assert run(wait()) == 5


def test_cancelling_who_awaits_leaves_execution_and_result_alone(host, gate) -> None:
    async def use(graph):
        future = await graph.execute_async(3)
        await asyncio.get_running_loop().run_in_executor(None, gate.wait_entered)
        with ticking() as tick:
            for parked in (1, 5, 400):
                task = asyncio.ensure_future(future)
                await turns_of(tick, 1) if parked > 1 else await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        gate.opened.set()
        assert await future == 3
        assert not any(graph._awaiting._wakes)

    with compiled(host, gate, "hold") as graph:
        run(use(graph))


def test_dropped_futures_make_room(host) -> None:
    async def use(graph):
        for number in range(20):
            await graph.execute_async(number)
        return await (await graph.execute_async(20))

    with compiled(host, _max_inflight_executions=2, _capacity_policy="block") as graph:
        assert run(use(graph)) == 20
        gc.collect()
        assert graph._results._kept == [{}]


# --- errors ---------------------------------------------------------------------------------------


def test_errors_are_those_of_get(host) -> None:
    async def use(graph):
        future = await graph.execute_async(1)
        with pytest.raises(ValueError, match="1 is bad"):
            await future
        with pytest.raises(ValueError, match="1 is bad"):
            await future
        assert isinstance(future.exception(), ValueError)
        with pytest.raises(ValueError, match="takes 1 positional input"):
            await graph.execute_async()
        with pytest.raises(TypeError, match="cannot send value of type _thread.lock"):
            await graph.execute_async(threading.Lock())
        results = await asyncio.gather(
            *[await graph.execute_async(number) for number in range(3)], return_exceptions=True
        )
        assert all(isinstance(one, ValueError) for one in results)

    with compiled(host, Gate(), "fail") as graph:
        run(use(graph))


def test_a_death_wakes_who_awaits_with_its_cause_and_later_executions_raise_it_too(
    host, gate
) -> None:
    actor = host.actor(gate)

    async def use(graph):
        futures = [await graph.execute_async(number) for number in range(2)]
        await asyncio.get_running_loop().run_in_executor(None, gate.wait_entered)
        tasks = [asyncio.ensure_future(future) for future in futures]
        with ticking() as tick:
            await turns_of(tick, 3)
        host.report_death(actor.actor_id)
        for task in tasks:
            with pytest.raises(GraphActorDiedError, match=r"lost actor Gate\(1\)"):
                await task
        with pytest.raises(GraphActorDiedError):
            await (await graph.execute_async(2))

    graph = one_method(actor, "hold").experimental_compile()
    run(use(graph))
    gate.opened.set()
    graph.teardown()


def test_teardown_wakes_who_awaits(host, gate) -> None:
    async def use(graph):
        future = await graph.execute_async(1)
        task = asyncio.ensure_future(future)
        with ticking() as tick:
            await turns_of(tick, 3)
        gate.opened.set()
        done = await graph.execute_async(2)
        assert await done == 2
        graph.teardown()
        with pytest.raises(ChannelClosedError, match="was torn down"):
            await graph.execute_async(3)
        assert await done == 2
        return await task

    graph = compiled(host, gate, "hold")
    assert run(use(graph)) == 1


# --- capacity -------------------------------------------------------------------------------------


def test_one_more_than_the_limit_is_refused_by_the_await(host) -> None:
    async def use(graph):
        futures = [await graph.execute_async(number) for number in range(2)]
        with pytest.raises(CapacityExceededError, match="_max_inflight_executions=2"):
            await graph.execute_async(2)
        assert await asyncio.gather(*futures) == [0, 1]

    with compiled(host, _max_inflight_executions=2) as graph:
        run(use(graph))


def test_blocking_makes_tasks_wait_in_line_and_never_the_loop(host, gate) -> None:
    async def use(graph):
        order = []

        async def execute(number):
            future = await graph.execute_async(number)
            order.append(number)
            return future

        with ticking() as tick:
            tasks = [asyncio.create_task(execute(number)) for number in range(12)]
            await turns_of(tick, 3)
            assert order == [0, 1]
            tasks[5].cancel()
            gate.opened.set()
            futures = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(futures.pop(5), asyncio.CancelledError)
        expected = [number for number in range(12) if number != 5]
        assert order == expected
        assert await asyncio.gather(*futures) == expected
        assert gate.seen == expected
        assert not graph._awaiting._line

    with compiled(
        host, gate, "hold", _max_inflight_executions=2, _capacity_policy="block"
    ) as graph:
        run(use(graph))
        assert graph._results._wanting == 0


def test_blocking_ends_with_the_time_it_was_given_wherever_a_task_is_in_line(host, gate) -> None:
    async def use(graph):
        future = await graph.execute_async(0)
        late = await asyncio.gather(
            *[graph.execute_async(number) for number in range(3)], return_exceptions=True
        )
        assert [type(one) for one in late] == [SubmitTimeoutError] * 3
        assert "within _submit_timeout (COMPILED_DAG_SUBMIT_TIMEOUT)=0.05 s" in str(late[0])
        assert late[0].report in str(late[0])
        gate.opened.set()
        assert await future == 0
        assert await (await graph.execute_async(1)) == 1

    with compiled(
        host, gate, "hold", _max_inflight_executions=1, _capacity_policy="block",
        _submit_timeout=0.05,
    ) as graph:  # fmt: skip
        run(use(graph))


class SlowToPickle:
    """Holds the submission's lock while it is pickled, until it is let go."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __reduce__(self):
        self.entered.set()
        assert self.opened.wait(PATIENCE_S)
        return (str, ("pickled",))


@pytest.mark.parametrize("cancels", [False, True])
def test_a_lock_that_is_taken_never_blocks_the_loop(host, cancels) -> None:
    slow = SlowToPickle()

    async def use(graph):
        assert slow.entered.wait(PATIENCE_S)
        with ticking() as tick:
            task = asyncio.create_task(graph.execute_async(1))
            await turns_of(tick, 3)
            assert not task.done()
            if cancels:
                task.cancel()
            slow.opened.set()
            if cancels:
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                assert await (await task) == 1

    with compiled(host, _max_inflight_executions=3) as graph:
        other = Background(graph.execute, slow)
        run(use(graph))
        assert other.result().get(30) == "pickled"
        # One after the other: what was cancelled may have been sent, and counts until it has run.
        assert [graph.execute(number).get(30) for number in range(3)] == [0, 1, 2]


# --- beside it ------------------------------------------------------------------------------------


def test_importing_the_package_loads_no_asyncio() -> None:
    code = "import compiled_dag, sys; assert 'asyncio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_compiling_needs_no_loop_and_enable_asyncio_changes_nothing(host) -> None:
    actor = host.actor(Worker(1))
    with one_method(actor).experimental_compile(enable_asyncio=True) as graph:
        assert graph.execute(1).get(30) == 1
        assert run(_execute(graph, 2)) == 2


async def _execute(graph, value):
    return await (await graph.execute_async(value))
