"""`CompiledDAG`: arguments, executions in flight, threads. See `test_ref` for its results."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import random
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest

from compiled_dag import (
    CapacityExceededError,
    CompiledDAGRef,
    GraphError,
    InputNode,
    MultiOutputNode,
)
from tests.gates import PATIENCE_S, Background, Gate, compiled, interrupt_once
from tests.graphs import Worker

get_many = CompiledDAGRef.get_many


# --- arguments ------------------------------------------------------------------------------------


def test_wrong_arguments_start_nothing(host) -> None:
    worker = host.actor(worker_object := Gate())
    with InputNode() as inp:
        output = MultiOutputNode([worker.echo.bind(inp[0]), worker.echo.bind(inp.rate)])
    with output.experimental_compile() as graph:
        for args, kwargs, text in [
            ((), {"rate": 1}, "takes 1 positional input and the keyword 'rate', execute got 0"),
            ((1, 2), {"rate": 1}, "takes 1 positional input and .*, execute got 2"),
            ((1,), {}, "needs the keyword input 'rate', execute got none"),
            ((1,), {"rat": 1}, "needs the keyword input 'rate', execute got 'rat'"),
        ]:
            with pytest.raises(ValueError, match=text):
                graph.execute(*args, **kwargs)
        assert get_many(graph.execute(1, rate=2, more=3), 30) == [1, 2]
    assert worker_object.seen == [1, 2]


def test_an_input_may_have_any_name(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.join.bind(inp["self"], inp["args"], inp["two words"])
    given = {"self": 1, "args": 2, "two words": 3}
    with output.experimental_compile() as graph:
        assert graph.execute(**given).get(30) == (1, 2, 3)
        assert asyncio.run(awaited(graph, given)) == (1, 2, 3)
    assert output.execute(**given).result(time.monotonic() + PATIENCE_S) == (1, 2, 3)


async def awaited(graph, given):
    return await (await graph.execute_async(**given))


def test_an_input_that_cannot_be_sent_starts_nothing(host) -> None:
    worker = host.actor(worker_object := Gate())
    with InputNode() as inp:
        output = MultiOutputNode([worker.echo.bind(inp[0]), worker.echo.bind(inp[1])])
    with output.experimental_compile(_max_inflight_executions=1) as graph:
        for _ in range(3):
            with pytest.raises(TypeError, match=r"input\[1\]: cannot send value\['k'\] of type _t"):
                graph.execute(np.zeros(100_000), {"k": threading.Lock()})
        assert get_many(graph.execute(1, 2), 30) == [1, 2]
    assert worker_object.seen == [1, 2]


@pytest.mark.parametrize(
    ("draw", "args", "kwargs", "name"),
    [
        (lambda inp: inp, ({"k": threading.Lock()},), {}, r"input"),
        (lambda inp: inp[0], ({"k": threading.Lock()},), {}, r"input\[0\]"),
        (lambda inp: inp.batch, (), {"batch": {"k": threading.Lock()}}, r"input\['batch'\]"),
    ],
)
def test_the_only_input_that_cannot_be_sent_is_named(host, draw, args, kwargs, name) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.echo.bind(draw(inp))
    with output.experimental_compile() as graph:
        with pytest.raises(TypeError, match=rf"^{name}: cannot send value\['k'\] of type _thread"):
            graph.execute(*args, **kwargs)


def test_outputs_are_a_list_only_if_drawn_as_one(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = MultiOutputNode([worker.echo.bind(inp)])
    with output.experimental_compile() as graph:
        (ref,) = graph.execute(1)
        assert ref.get(30) == 1
    with compiled(host) as graph:
        assert isinstance(graph.execute(1), CompiledDAGRef)


# --- capacity -------------------------------------------------------------------------------------


def test_one_more_than_the_limit_is_refused_and_says_what_to_do(host) -> None:
    with compiled(host, _max_inflight_executions=3) as graph:
        refs = [graph.execute(number) for number in range(3)]
        with pytest.raises(CapacityExceededError) as raised:
            graph.execute(3)
        text = str(raised.value)
        assert f"3 executions of graph {graph.get_id()} are unfetched, from execution 0 on" in text
        assert "_max_inflight_executions=3" in text
        assert '_capacity_policy="block"' in text
        assert refs[0].get(30) == 0
        assert graph.execute(3).get(30) == 3


def test_finished_executions_count_until_they_are_got(host) -> None:
    with compiled(host, _max_inflight_executions=2) as graph:
        refs = [graph.execute(number) for number in range(2)]
        assert refs[1].get(30) == 1  # reads 0 too, which makes room for it
        refs += [graph.execute(2), graph.execute(3)]
        with pytest.raises(CapacityExceededError):
            graph.execute(4)
        assert get_many(refs, 30) == [0, 1, 2, 3]


def test_an_execution_is_fetched_when_all_its_outputs_are(host) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    with InputNode() as inp:
        output = MultiOutputNode([first.echo.bind(inp), second.echo.bind(inp)])
    with output.experimental_compile(_max_inflight_executions=2) as graph:
        refs = [graph.execute(number) for number in range(2)]
        assert [left.get(30) for left, _ in refs] == [0, 1]
        with pytest.raises(CapacityExceededError):
            graph.execute(2)
        assert refs[0][1].get(30) == 0
        assert get_many(graph.execute(2), 30) == [2, 2]


def test_blocking_moves_results_to_the_driver_and_goes_on(host) -> None:
    with compiled(host, _max_inflight_executions=2, _capacity_policy="block") as graph:
        refs = [graph.execute(number) for number in range(50)]
        assert get_many(refs, 30) == list(range(50))


def test_blocking_ends_with_the_time_it_was_given(gated, gate) -> None:
    graph = gated(_max_inflight_executions=1, _capacity_policy="block", _submit_timeout=0.01)
    ref = graph.execute(0)
    gate.wait_entered()
    for _ in range(2):
        with pytest.raises(CapacityExceededError, match="1 executions of graph"):
            graph.execute(1)
    gate.opened.set()
    assert ref.get(30) == 0
    assert graph.execute(1).get(30) == 1


def test_blocking_goes_on_as_soon_as_there_is_room(gated, gate) -> None:
    graph = gated(_max_inflight_executions=1, _capacity_policy="block", _submit_timeout=-1)
    first = graph.execute(0)
    gate.wait_entered()
    later = Background(graph.execute, 1)
    gate.opened.set()
    assert later.result().get(30) == 1
    assert first.get(30) == 0


def test_refusing_does_not_wait_for_a_thread_that_waits_for_a_result(gated, gate) -> None:
    graph = gated(_max_inflight_executions=1)
    ref = graph.execute(0)
    gate.wait_entered()
    waiting = Background(ref.get, -1)
    assert waiting.running(0.02)
    refused = Background(graph.execute, 1)
    with pytest.raises(CapacityExceededError):
        refused.result()
    assert waiting.running()
    gate.opened.set()
    assert waiting.result() == 0


# --- threads --------------------------------------------------------------------------------------


def test_threads_that_execute_at_once_get_gapless_numbers_in_the_order_actors_see(host) -> None:
    actor = Gate()
    with compiled(host, actor, _capacity_policy="block", _max_inflight_executions=4) as graph:
        refs: list[CompiledDAGRef] = []
        start = threading.Barrier(4)

        def work(thread: int) -> None:
            start.wait(PATIENCE_S)
            mine = [(graph.execute((thread, number)), (thread, number)) for number in range(25)]
            assert [ref.get(30) for ref, _ in mine] == [value for _, value in mine]
            refs.extend(ref for ref, _ in mine)

        threads = [Background(work, number) for number in range(4)]
        for thread in threads:
            thread.result()
    assert sorted(ref._execution for ref in refs) == list(range(100))
    by_number = {ref._execution: ref.get() for ref in refs}
    assert actor.seen == [by_number[number] for number in range(100)]


def test_a_result_that_is_ready_is_got_while_another_thread_waits(host, gate) -> None:
    slow, quick = host.actor(gate), host.actor(Worker(1))
    with InputNode() as inp:
        output = MultiOutputNode([slow.hold.bind(inp), quick.add.bind(inp)])
    with output.experimental_compile() as graph:
        held, ready = graph.execute(1)
        gate.wait_entered()
        waiting = Background(held.get, -1)
        assert waiting.running(0.02)
        assert Background(ready.get, 10).result() == 2
        assert waiting.running()
        gate.opened.set()
        assert waiting.result() == 1


def test_an_earlier_result_is_got_while_another_thread_waits_for_a_later_one(host) -> None:
    class Second(Gate):
        def hold(self, value):
            return value if value == 0 else super().hold(value)

    gate = Second()
    with compiled(host, gate, "hold") as graph:
        early, late = graph.execute(0), graph.execute(1)
        gate.wait_entered()
        waiting = Background(late.get, -1)
        assert waiting.running(0.02)
        assert Background(early.get, 10).result() == 0
        gate.opened.set()
        assert waiting.result() == 1


def test_several_threads_may_wait_for_one_ref(gated, gate) -> None:
    ref = gated().execute(7)
    waiting = [Background(ref.get, 30) for _ in range(4)]
    gate.wait_entered()
    gate.opened.set()
    assert [one.result() for one in waiting] == [7] * 4


def test_whatever_threads_get_and_drop_values_are_right_and_nothing_is_left_behind(host) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    with InputNode() as inp:
        left, right = first.echo.bind(inp), second.echo.bind(inp)
        output = MultiOutputNode([left, right, left])
    graph = output.experimental_compile(_max_inflight_executions=4, _capacity_policy="block")

    def work(thread: int) -> None:
        chance, held = random.Random(thread), []
        for number in range(80):
            size = chance.choice([3, 100_000])
            value = np.full(size, 1000 * thread + number)
            held += [(ref, value) for ref in graph.execute(value) if chance.random() < 0.6]
            while len(held) > chance.randrange(6):
                ref, expected = held.pop(chance.randrange(len(held)))
                if chance.random() < 0.7:
                    assert np.array_equal(ref.get(30), expected)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for one in [Background(work, thread) for thread in range(4)]:
            one.result()
    finally:
        sys.setswitchinterval(before)
    gc.collect()
    assert all(np.array_equal(value, [7]) for value in get_many(graph.execute(np.array([7])), 30))
    results = graph._results
    assert [results._kept, results._dropped, results._claimed] == [
        [{}, {}],
        [set(), set()],
        [{}, {}],
    ]
    graph.teardown()


# --- interrupts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["stage", "publish"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_interrupted_execute_leaves_later_ones_right(
    host, monkeypatch, which, name, after
) -> None:
    actor = Gate()
    bound = host.actor(actor)
    with InputNode() as inp:
        output = MultiOutputNode([bound.echo.bind(inp[0]), bound.echo.bind(inp[1])])
    with output.experimental_compile(_max_inflight_executions=3) as graph:
        for number in range(4):
            interrupt_once(
                monkeypatch, graph._submission.inlet.writers[which][0], name, after=after
            )
            with pytest.raises(KeyboardInterrupt):
                graph.execute("interrupted", b"x" * 100_000)
            assert get_many(graph.execute(number, -number), 30) == [number, -number]
    # What was interrupted ran whole or not at all.
    runs = actor.seen.count("interrupted")
    assert len(actor.seen) == 2 * (4 + runs)
    assert runs in (0, 4)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("timeout", "name"), [(None, "peek"), (30, "peek"), (30, "advance")])
def test_an_interrupted_get_can_be_repeated(host, monkeypatch, timeout, name, after) -> None:
    with compiled(host, _max_inflight_executions=2) as graph:
        for number in range(4):
            ref = graph.execute([number])
            interrupt_once(monkeypatch, graph._results.readers[0], name, after=after)
            with pytest.raises(KeyboardInterrupt):
                ref.get(timeout)
            assert ref.get(timeout) == [number]


# --- looking in -----------------------------------------------------------------------------------


def test_a_graph_shows_its_actors_options_program_and_state(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        output = worker.add.bind(inp)
    graph = output.experimental_compile(_max_inflight_executions=3)
    assert graph.actors == (worker,)
    assert graph.options.max_inflight == 3
    assert "C1 v1=add(v0)" in str(graph.program)
    assert int(graph.get_id(), 16) > 0
    assert repr(graph) == f"<CompiledDAG {graph.get_id()} over Worker(1): up>"
    graph.teardown()
    assert repr(graph).endswith("torn down>")


def test_what_a_graph_lacks_is_refused_with_what_to_use(host) -> None:
    with InputNode() as inp:
        output = host.actor(Worker(1)).add.bind(inp)
    with output.experimental_compile() as graph:
        with pytest.raises(AttributeError, match=r"'get_channel_details': .* explain\(\) says how"):
            graph.get_channel_details(None, "")
        with pytest.raises(
            AttributeError, match="'CompiledDAG' object has no attribute 'exec'$"
        ) as e:
            graph.exec()
        assert (e.value.name, e.value.obj) == ("exec", graph)  # what Python tells the near name by


@pytest.mark.parametrize("carried", [pickle.dumps, cloudpickle.dumps, copy.copy])
def test_a_graph_stays_in_the_process_that_compiled_it(host, carried) -> None:
    with InputNode() as inp:
        output = host.actor(Worker(1)).add.bind(inp)
    with output.experimental_compile() as graph:
        with pytest.raises(
            GraphError, match=rf"only process {os.getpid()}, which compiled it, may"
        ):
            carried(graph)
        assert graph.execute(1).get(PATIENCE_S) == 2


def test_a_graph_that_is_collected_is_torn_down(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        output = worker.add.bind(inp)
    graph = output.experimental_compile()
    deployment = graph._deployment
    del graph
    gc.collect()
    assert host.waiter.until(
        lambda: deployment.closed_at is not None, lambda: None, time.monotonic() + PATIENCE_S
    )
    assert worker.echo.remote(5).result(time.monotonic() + PATIENCE_S) == 5
