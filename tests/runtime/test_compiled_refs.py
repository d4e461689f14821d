"""References of compiled graphs where ordinary ones are taken: get, wait, put, calls, loops."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import runtime
from compiled_dag import ChannelClosedError, DAGContext, InputNode
from tests.crew import wait_for_file

pytestmark = pytest.mark.proc


@runtime.remote
class Echo:
    def echo(self, value):
        return value

    def refer(self, value):
        return type(value).__name__

    def hold(self, path):
        wait_for_file(path)
        return path

    def defaults(self):
        context = DAGContext.get_current()
        return context.get_timeout, context.capacity_policy, context.max_inflight_executions

    def fail(self, value):
        raise ValueError(f"{value} is bad")


@runtime.remote
def echo(value):
    return value


def graph_of(actor, method="echo", **options):
    with InputNode() as inp:
        output = getattr(actor, method).bind(inp)
    return output.experimental_compile(**options)


def test_get_wait_put_and_calls_with_compiled_references(session, tmp_path) -> None:
    quick, slow, bad = Echo.remote(), Echo.remote(), Echo.remote()
    with graph_of(quick) as graph, graph_of(slow, "hold") as held, graph_of(bad, "fail") as failing:
        ordinary, ref = echo.remote(1), graph.execute(2)
        assert runtime.get([ref, failing_ok(graph)]) == [2, 3]
        with pytest.raises(ValueError, match="item 1 is of type ObjectRef, and .*wait"):
            runtime.get([ref, ordinary])
        with pytest.raises(ValueError, match="get: item 0 is of type int"):
            runtime.get([5, ref])

        path = str(tmp_path / "gate")
        late, wrong = held.execute(path), failing.execute(7)
        future = asyncio.run(graph.execute_async(4))
        late_task = echo.remote(late_value := 6)
        refs = [late, ref, wrong, ordinary, future, late_task]
        ready, rest = runtime.wait(refs, num_returns=5, timeout=30)
        assert (ready, rest) == (refs[1:], [late])
        assert runtime.wait([late], timeout=0) == ([], [late])
        assert runtime.wait([late, wrong], num_returns=2, timeout=0.01) == ([wrong], [late])
        for not_a_list, error in [
            (late, TypeError),
            ([late, late], ValueError),
            ([late, 5], TypeError),
        ]:
            with pytest.raises(error, match="wait"):
                runtime.wait(not_a_list)
        (tmp_path / "gate").touch()
        assert runtime.wait([late], timeout=30) == ([late], [])
        assert runtime.get([late, future]) == [path, 4]
        assert runtime.get(late_task) == late_value
        with pytest.raises(ValueError, match="7 is bad"):
            runtime.get([ref, wrong])

        for use in (runtime.put, echo.remote, graph.execute, lambda one: graph.execute([one])):
            with pytest.raises(TypeError, match="cannot be pickled or sent: get its value first"):
                use(ref)
        with graph_of(Echo.remote(), "refer") as referring:
            assert referring.execute(runtime.put(1)).get(30) == "ObjectRef"


def test_workers_begin_with_what_the_driver_changed_in_its_context(session, monkeypatch) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "get_timeout", 33.0)
    monkeypatch.setattr(DAGContext.get_current(), "capacity_policy", "block")
    assert runtime.get(Echo.remote().defaults.remote()) == (33.0, "block", 10)


def failing_ok(graph):
    return graph.execute(3)


def test_a_result_outlives_teardown_and_session_and_loops_come_and_go(session) -> None:
    graph = graph_of(Echo.remote(), _capacity_policy="queue", _max_inflight_executions=2)

    async def use():
        futures = await asyncio.gather(*[graph.execute_async(number) for number in range(40)])
        return await asyncio.gather(*reversed(futures))

    for _ in range(3):
        assert asyncio.run(use()) == list(reversed(range(40)))
    array = graph.execute(np.arange(100_000)).get(30)
    cached, uncached = graph.execute([1]), graph.execute([2])
    assert cached.get(30) == [1]
    graph.teardown()
    runtime.shutdown()
    assert array.sum() == sum(range(100_000))
    assert cached.get() == asyncio.run(awaited(cached)) == [1]
    with pytest.raises(ChannelClosedError, match=r"was torn down .* s ago"):
        uncached.get(30)
    with pytest.raises(ChannelClosedError, match="was torn down"):
        asyncio.run(awaited(uncached))


async def awaited(ref):
    return await ref
