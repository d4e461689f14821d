"""What happens when the window is full: the policies ``queue`` and ``drop_oldest``, and messages.

``raise`` and ``block`` are in `test_driver`, coroutines in `test_awaiting`.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

from compiled_dag import (
    CapacityExceededError,
    ChannelClosedError,
    CompiledDAGRef,
    ExecutionDroppedError,
    GraphActorDiedError,
    InputNode,
    MemoryCapError,
    MultiOutputNode,
)
from compiled_dag.watcher import Watcher
from tests.gates import PATIENCE_S, Background, Gate, compiled, interrupt_once, one_method, soon
from tests.graphs import Worker

get_many = CompiledDAGRef.get_many


def until(host, ready) -> None:
    assert host.waiter.until(ready, lambda: None, soon())


# --- what a refusal says --------------------------------------------------------------------------


def test_a_refusal_says_which_are_unfetched_and_who_has_them(host, gate) -> None:
    class Second(Gate):
        def hold(self, value):
            return value if value == 0 else super().hold(value)

    gate = Second()
    with compiled(host, gate, "hold", _max_inflight_executions=3) as graph:
        refs = [graph.execute(number) for number in range(3)]
        gate.wait_entered()
        with pytest.raises(CapacityExceededError) as raised:
            graph.execute(3)
        text = str(raised.value)
        gate.opened.set()
        assert "3 executions of graph" in text
        assert "_max_inflight_executions=3" in text
        assert "execution 0 has finished and output 0 was not got" in text
        assert "execution 1 has not finished: Second(1) is in it (Second.hold (node 1" in text
        assert "execution 2 has not finished: no actor is at it yet" in text
        assert get_many(refs, 30) == [0, 1, 2]


def test_a_refusal_does_not_name_what_only_stands_behind_another_execution(host) -> None:
    with compiled(host, Gate(), "echo", _max_inflight_executions=3) as graph:
        first, *others = [graph.execute(number) for number in range(3)]
        until(host, others[1].ready)
        others.clear()
        with pytest.raises(CapacityExceededError) as raised:
            graph.execute(3)
        text = str(raised.value)
        assert "3 executions of graph" in text
        assert "execution 0 has finished and output 0 was not got. Get results" in text
        assert first.get(30) == 0


# --- block ----------------------------------------------------------------------------------------


def test_blocking_waits_for_a_get_where_no_more_results_may_be_kept(host) -> None:
    """One thread executes, another one is slower to get."""
    options = {"_max_inflight_executions": 2, "_max_buffered_results": 2}
    with compiled(host, _capacity_policy="block", _submit_timeout=-1, **options) as graph:
        refs = [graph.execute(number) for number in range(4)]
        for number in range(4, 30):
            later = Background(graph.execute, number)
            assert refs[number - 4].get(30) == number - 4
            refs.append(later.result())
        later = Background(graph.execute, 30)
        del refs[26:28]  # a dropped one makes room as well
        refs.append(later.result())
        assert get_many(refs[26:], 30) == [28, 29, 30]
        assert graph._results._wanting == 0


# --- queue ----------------------------------------------------------------------------------------


def test_inputs_wait_in_the_driver_and_are_run_in_order(host, gate) -> None:
    options = {"_max_inflight_executions": 2, "_max_queued_executions": 5}
    with compiled(host, gate, "hold", _capacity_policy="queue", **options) as graph:
        value = np.zeros(3)
        refs = [graph.execute(value + number) for number in range(2)]
        mutable = [2]
        refs.append(graph.execute(mutable))
        mutable.append("changed since")
        refs += [graph.execute(number) for number in range(3, 7)]
        with pytest.raises(CapacityExceededError) as raised:
            graph.execute(7)
        assert "5 more wait to be sent, and _max_queued_executions=5" in str(raised.value)
        with pytest.raises(ValueError, match="takes 1 positional"):
            graph.execute()
        gate.opened.set()
        assert [ref.get(30) for ref in refs[2:]] == [[2], 3, 4, 5, 6]
        assert refs[1].get(30).tolist() == [1, 1, 1]
        assert [ref._execution for ref in refs] == list(range(7))
        assert graph.execute(7).get(30) == 7
    assert [one for one in gate.seen if isinstance(one, int)] == [3, 4, 5, 6, 7]


def test_what_waits_is_sent_though_nobody_gets_or_executes(host, gate) -> None:
    options = {"_max_inflight_executions": 1, "_capacity_policy": "queue"}
    with compiled(host, gate, "hold", **options) as graph:
        refs = [graph.execute(number) for number in range(20)]
        gate.opened.set()
        until(host, lambda: len(gate.seen) == 20)
        assert get_many(refs, 30) == list(range(20))
        until(host, lambda: not Watcher.of(host)._watches)


def test_a_queue_goes_on_when_results_are_got_or_dropped(host) -> None:
    """No more may be kept than two: then only a get, or the end of a ref, makes room."""
    options = {"_max_inflight_executions": 2, "_max_buffered_results": 2}
    with compiled(host, actor := Gate(), _capacity_policy="queue", **options) as graph:
        refs = [graph.execute(number) for number in range(12)]
        until(host, lambda: len(actor.seen) == 4)
        assert refs[0].get(30) == 0
        until(host, lambda: len(actor.seen) == 5)
        del refs[1]
        until(host, lambda: len(actor.seen) == 6)
        assert [ref.get(30) for ref in refs[1:]] == list(range(2, 12))


def test_threads_that_queue_get_gapless_numbers_in_the_order_actors_see(host) -> None:
    actor = Gate()
    with compiled(host, actor, _capacity_policy="queue", _max_inflight_executions=2) as graph:
        start, refs = threading.Barrier(3), []

        def work(thread: int) -> None:
            start.wait(PATIENCE_S)
            mine = [(graph.execute((thread, number)), (thread, number)) for number in range(30)]
            assert [ref.get(30) for ref, _ in mine] == [value for _, value in mine]
            refs.extend(ref for ref, _ in mine)

        for one in [Background(work, number) for number in range(3)]:
            one.result()
        assert sorted(ref._execution for ref in refs) == list(range(90))
        by_number = {ref._execution: ref.get() for ref in refs}
        assert actor.seen == [by_number[number] for number in range(90)]


def test_an_input_that_cannot_be_queued_is_refused_at_once(host, gate) -> None:
    options = {"_max_inflight_executions": 1, "_capacity_policy": "queue"}
    with compiled(host, gate, "hold", **options) as graph:
        first = graph.execute(0)
        with pytest.raises(TypeError, match=r"cannot send value\['k'\] of type _thread\.lock"):
            graph.execute({"k": threading.Lock()})
        second = graph.execute(1)
        gate.opened.set()
        assert get_many([first, second], 30) == [0, 1]


def test_where_there_is_no_memory_for_a_queued_input_its_refs_raise_that(host, gate) -> None:
    options = {"_max_inflight_executions": 1, "_max_memory_bytes": 1 << 20}
    with compiled(host, gate, "hold", _capacity_policy="queue", **options) as graph:
        refs = [graph.execute(value) for value in (0, bytes(2 << 20), 2)]
        gate.opened.set()
        assert refs[0].get(30) == 0
        with pytest.raises(MemoryCapError):
            refs[1].get(30)
        assert refs[2].get(30) == 2
    assert gate.seen == [0, 2]


@pytest.mark.parametrize("end", ["teardown", "death"])
def test_refs_of_what_waits_raise_what_ended_the_graph(host, gate, end) -> None:
    actor = host.actor(gate)
    options = {"_max_inflight_executions": 1, "_capacity_policy": "queue"}
    graph = one_method(actor, "hold").experimental_compile(**options)
    refs = [graph.execute(number) for number in range(3)]
    gate.wait_entered()
    waiting = Background(refs[2].get, -1)
    assert waiting.running(0.02)
    if end == "death":
        host.report_death(actor.actor_id)
    else:
        later = Background(graph.teardown)
        until(host, lambda: graph.is_teardown)
    error = GraphActorDiedError if end == "death" else ChannelClosedError
    with pytest.raises(error):
        waiting.result()
    for ref in refs:
        with pytest.raises(error):
            ref.get(30)
    until(host, lambda: not graph._submission._waiting)
    gate.opened.set()
    if end == "death":
        graph.teardown()
    else:
        later.result()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["stage", "publish", "capture"])
def test_an_interrupted_execute_leaves_a_queue_right(host, monkeypatch, gate, name, after) -> None:
    options = {"_max_inflight_executions": 1, "_capacity_policy": "queue"}
    with compiled(host, gate, "hold", **options) as graph:
        refs = [graph.execute(0)]
        interrupt_once(monkeypatch, graph._submission.inlet.writers[0][0], name, after=after)
        if name == "capture":
            with pytest.raises(KeyboardInterrupt):
                graph.execute("interrupted")
        else:
            with graph._submission.lock:  # so that the watching thread does not send it
                refs.append(graph.execute(1))
                gate.opened.set()
                until(host, lambda: graph._results.is_finished(0))
                with pytest.raises(KeyboardInterrupt):
                    graph.execute("interrupted")
        gate.opened.set()
        refs += [graph.execute(number) for number in range(2, 5)]
        assert get_many(refs, 30) == [0, 2, 3, 4] if name == "capture" else [0, 1, 2, 3, 4]
    assert "interrupted" not in gate.seen


# --- drop_oldest ----------------------------------------------------------------------------------


def test_the_oldest_that_has_finished_goes_first(host) -> None:
    options = {"_max_inflight_executions": 3, "_capacity_policy": "drop_oldest"}
    with compiled(host, actor := Gate(), **options) as graph:
        refs = [graph.execute(number) for number in range(3)]
        until(host, lambda: graph._results.is_finished(2))
        refs += [graph.execute(number) for number in range(3, 5)]
        for number in (0, 1):
            text = rf"execution {number} of graph .* was dropped for execution {number + 3}: .*=3"
            with pytest.raises(ExecutionDroppedError, match=text):
                refs[number].get(30)
            with pytest.raises(CapacityExceededError):
                refs[number].get(0)
        assert get_many(refs[2:], 30) == [2, 3, 4]
        assert graph.execute(5).get(30) == 5
    assert actor.seen == [0, 1, 2, 3, 4, 5]


def test_without_one_the_oldest_in_flight_goes_and_then_whatever_waits(host, gate) -> None:
    options = {"_max_inflight_executions": 2, "_capacity_policy": "drop_oldest"}
    with compiled(host, gate, "hold", **options) as graph:
        refs = [graph.execute(number) for number in range(2)]
        gate.wait_entered()
        getting = Background(refs[0].get, -1)
        assert getting.running(0.02)
        refs += [graph.execute(number) for number in range(2, 5)]
        with pytest.raises(ExecutionDroppedError, match="execution 0 of graph .* for execution 2"):
            getting.result()
        for ref in refs[2:4]:
            with pytest.raises(ExecutionDroppedError, match="still waited to be sent .* for exec"):
                ref.get(-1)
        assert not refs[1].ready()
        assert refs[2].ready()
        gate.opened.set()
        assert get_many([refs[1], refs[4]], 30) == [1, 4]
        assert refs[4]._execution == 2
        assert graph.execute(5).get(30) == 5
    assert gate.seen == [0, 1, 4, 5]


def test_dropping_is_of_whole_executions_and_what_was_got_stays(host, gate) -> None:
    quick, slow = host.actor(Worker(1)), host.actor(gate)
    with InputNode() as inp:
        value = quick.add.bind(inp)
        output = MultiOutputNode([value, value, slow.hold.bind(inp), 7])
    options = {"_max_inflight_executions": 1, "_capacity_policy": "drop_oldest"}
    with output.experimental_compile(**options) as graph:
        got, not_got, late, own = graph.execute(0)
        assert got.get(30) == 1
        newer = graph.execute(1)
        for ref in (not_got, late):
            with pytest.raises(ExecutionDroppedError):
                ref.get(30)
        assert [got.get(), own.get()] == [1, 7]
        gate.opened.set()
        assert get_many(newer, 30) == [2, 2, 1, 7]
        assert [graph._results._kept, graph._results._claimed] == [[{}, {}], [{}, {}]]
        assert graph._results._dropped == [set(), set()]


def test_nothing_is_dropped_while_results_are_got_and_memory_stays(host) -> None:
    options = {"_max_inflight_executions": 2, "_capacity_policy": "drop_oldest"}
    with compiled(host, **options) as graph:
        for number in range(30):
            assert graph.execute(number).get(30) == number
        for number in range(30):
            graph.execute(number)
        assert graph.execute(np.arange(3)).get(30).tolist() == [0, 1, 2]
        assert len(graph._submission._droppable) <= 2
        assert graph._results._kept == [{}]
