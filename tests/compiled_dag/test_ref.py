"""`CompiledDAGRef`: results in any order, in lists, dropped, late."""

from __future__ import annotations

import copy
import math
import pickle
import time
from contextlib import contextmanager

import cloudpickle
import pytest

from compiled_dag import (
    CapacityExceededError,
    ChannelTimeoutError,
    CompiledDAGRef,
    InputNode,
    MultiOutputNode,
)
from tests.gates import PATIENCE_S, Background, Gate, compiled, soon
from tests.graphs import Worker

get_many = CompiledDAGRef.get_many


# --- what a ref is --------------------------------------------------------------------------------


@contextmanager
def executed(host):
    """Yield the ref of an execution."""
    with InputNode() as inp:
        output = host.actor(Worker(1)).add.bind(inp)
    with output.experimental_compile() as graph:
        yield graph.execute(1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_ref_cannot_be_copied(host, copied) -> None:
    with executed(host) as ref:
        with pytest.raises(
            ValueError, match="cannot be copied: it is the one handle on its result"
        ):
            copied(ref)


@pytest.mark.parametrize("pickled", [pickle.dumps, cloudpickle.dumps])
def test_a_ref_cannot_be_pickled(host, pickled) -> None:
    with executed(host) as ref:
        with pytest.raises(ValueError, match="cannot be pickled or sent: get its value first"):
            pickled([ref])


def test_a_ref_that_could_not_be_copied_is_as_good_as_before(host) -> None:
    with executed(host) as ref:
        for refused in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(ValueError, match="cannot be"):
                refused(ref)
        assert ref.get(30) == 2


def test_a_ref_shows_its_graph_execution_and_state(host) -> None:
    with executed(host) as ref:
        where = f"graph {ref._dag.get_id()} execution 0 output 0"
        assert repr(ref) == f"<CompiledDAGRef {where} pending>"
        ref.get(30)
        assert repr(ref) == f"<CompiledDAGRef {where} ready>"


# --- results in any order -------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_results_may_be_got_in_any_order(host, order) -> None:
    with compiled(host) as graph:
        refs = [graph.execute(number) for number in range(4)]
        assert [refs[number].get(30) for number in order] == list(order)


def test_a_result_is_the_same_object_as_often_as_asked(host) -> None:
    with compiled(host) as graph:
        ref = graph.execute([1])
        assert ref.get(30) is ref.get(0)


def test_more_results_than_may_be_kept_are_refused_and_nothing_is_lost(host) -> None:
    with compiled(host, _max_buffered_results=2) as graph:
        refs = [graph.execute(number) for number in range(4)]
        with pytest.raises(CapacityExceededError, match=r"_max_buffered_results=2\. Get or drop"):
            refs[3].get(30)
        assert [refs[number].get(30) for number in (1, 0, 3, 2)] == [1, 0, 3, 2]


def test_an_output_given_twice_is_not_kept_for_ever(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        value = worker.add.bind(inp)
        output = MultiOutputNode([value, value])
    with output.experimental_compile(_max_buffered_results=2) as graph:
        for number in range(20):
            assert get_many(graph.execute(number), 30) == [number + 1] * 2


def test_an_output_given_twice_of_which_one_is_dropped_is_not_kept_for_ever(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        value = worker.add.bind(inp)
        output = MultiOutputNode([value, value])
    with output.experimental_compile(_max_buffered_results=2) as graph:
        for number in range(20):
            assert graph.execute(number)[number % 2].get(30) == number + 1


def test_a_list_is_got_under_one_deadline(gated, gate) -> None:
    graph = gated()
    refs = [graph.execute(number) for number in range(5)]
    gate.wait_entered()
    before = time.monotonic()
    with pytest.raises(ChannelTimeoutError, match="execution 0, 1, 2, 3, 4 of graph"):
        get_many(refs, 0.05)
    assert time.monotonic() - before < PATIENCE_S
    gate.opened.set()
    assert get_many(refs, 30) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("timeout", [None, 30])
def test_a_list_raises_the_first_error_without_waiting_for_slower_outputs(
    host, gate, timeout
) -> None:
    slow, quick = host.actor(gate), host.actor(Gate())
    with InputNode() as inp:
        output = MultiOutputNode([slow.hold.bind(inp), quick.fail.bind(inp)])
    with output.experimental_compile() as graph:
        refs = graph.execute(1)
        with pytest.raises(ValueError, match="1 is bad"):
            get_many(refs, timeout)
        assert not refs[0].ready()
        gate.opened.set()
        assert refs[0].get(30) == 1


def test_a_list_whose_first_ref_is_an_error_does_not_wait_for_the_next(host, gate) -> None:
    slow, quick = host.actor(gate), host.actor(Gate())
    with InputNode() as inp:
        output = MultiOutputNode([quick.fail.bind(inp), slow.hold.bind(inp)])
    with output.experimental_compile() as graph:
        refs = graph.execute(1)
        with pytest.raises(ValueError, match="1 is bad"):
            get_many(refs)
        assert not refs[1].ready()
        gate.opened.set()
        with pytest.raises(ValueError, match="1 is bad"):
            get_many(refs)
        assert refs[1].get(30) == 1


@pytest.mark.parametrize("timeout", [None, 30])
def test_a_list_may_hold_one_ref_twice_and_refs_of_several_graphs(host, timeout) -> None:
    with compiled(host) as one, compiled(host) as other:
        ref = one.execute(1)
        assert get_many([ref, other.execute(2), ref, one.execute(3)], timeout) == [1, 2, 1, 3]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_list_may_be_in_any_order_and_leave_results_out(host, order) -> None:
    with compiled(host) as graph:
        refs = [graph.execute(number) for number in range(5)]
        assert get_many([refs[number] for number in order]) == list(order)
        assert get_many([refs[order[0]], refs[4]]) == [order[0], 4]
        refs = [graph.execute(number) for number in range(5)]
        assert get_many([refs[4], refs[order[0]]]) == [4, order[0]]


def test_a_list_is_got_by_threads_at_once(host) -> None:
    first, second = host.actor(Worker(1)), host.actor(Worker(2))
    with InputNode() as inp:
        output = MultiOutputNode([first.add.bind(inp), second.add.bind(inp)])
    with output.experimental_compile() as graph:
        for number in range(50):
            refs = graph.execute(number)
            threads = [Background(get_many, list(part)) for part in (refs, refs[::-1], refs)]
            expected = [number + 1, number + 2]
            assert [sorted(one.result()) for one in threads] == [expected] * 3


def test_without_a_time_progress_of_any_graph_counts_and_any_error_is_raised_first(host) -> None:
    """A list whose refs come one by one, in turns of two graphs, each within the default."""
    gates = [Gate(), Gate()]
    graphs = [compiled(host, gate, "step", _get_timeout=2.5) for gate in map(Steps, gates)]
    refs = [graphs[number % 2].execute(number) for number in range(6)]
    getting = Background(get_many, refs)
    for number in range(6):
        assert getting.running(0.6)
        gates[number % 2].entered.release()
    assert getting.result() == list(range(6))
    late = graphs[0].execute(7)
    with compiled(host, Gate(), "fail") as failing:
        with pytest.raises(ValueError, match="1 is bad"):
            get_many([late, failing.execute(1)], 30)
    gates[0].entered.release()
    assert late.get(30) == 7
    for graph in graphs:
        graph.teardown()


class Steps:
    """Each call takes one release of a gate's semaphore."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def step(self, value):
        assert self.gate.entered.acquire(timeout=PATIENCE_S)
        return value


def test_an_empty_list_is_an_empty_list() -> None:
    assert get_many([]) == []


# --- dropped refs ---------------------------------------------------------------------------------


def test_results_of_dropped_refs_make_room(host) -> None:
    with compiled(host, _max_inflight_executions=2, _capacity_policy="block") as graph:
        for number in range(20):
            graph.execute(number)
        assert graph.execute(20).get(30) == 20
        assert graph._results._kept == [{}]


def test_refs_dropped_after_their_results_came_leave_nothing_behind(host) -> None:
    with compiled(host, _max_buffered_results=3) as graph:
        for value in (7, None, [1]):
            for _ in range(5):
                refs = [graph.execute(value) for _ in range(4)]
                assert refs[-1].get(30) == value
                del refs
        assert graph._results._kept == [{}]
        assert graph._results._dropped == [set()]


def test_dropping_some_outputs_of_an_execution_frees_their_memory_alone(host) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    with InputNode() as inp:
        output = MultiOutputNode([first.zeros.bind(inp), second.zeros.bind(inp)])
    with output.experimental_compile(_max_inflight_executions=2) as graph:
        kept = []
        for _ in range(10):
            left, right = graph.execute(100_000)
            kept.append(left.get(30))
            del left, right
            _finish(graph)
        assert all(value.sum() == 0 for value in kept)
        (dropped,) = [one for one in graph.memory().channels if one.name.endswith("#2")]
        assert dropped.reserved_bytes <= 3 * 1_000_000 + 3 * 4096


def _finish(graph) -> None:
    """Wait until an execution could be submitted, without submitting one."""
    readers = graph._results.readers
    ready = graph._host.waiter.until(
        lambda: all(r.words[r.sequence_word] == graph._submission.next for r in readers),
        graph._deployment.guard,
        soon(),
    )
    assert ready


def test_a_graph_whose_results_nobody_wants_is_usable_for_ever(host) -> None:
    with compiled(host, _max_inflight_executions=2) as graph:
        for number in range(20):
            graph.execute(number)
            _finish(graph)


# --- time-outs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "where"), [(0, ""), (0.01, "Gate(1) is in Gate.hold (node 1, ")]
)
def test_a_get_that_is_late_says_so_and_loses_nothing(gated, gate, timeout, where) -> None:
    graph = gated()
    ref = graph.execute(7)
    gate.wait_entered()
    for _ in range(2):
        with pytest.raises(ChannelTimeoutError) as raised:
            ref.get(timeout)
        text = str(raised.value)
        assert (
            f"execution 0 of graph {graph.get_id()} was not ready within timeout={timeout}" in text
        )
        assert where in raised.value.report
        assert raised.value.report in text
    with pytest.raises(ChannelTimeoutError, match=r"^execution 0, 1 of graph "):
        get_many([ref, ref, graph.execute(8)], timeout)
    gate.opened.set()
    assert ref.get(30) == 7


def test_the_default_time_is_the_graphs_option(gated, gate) -> None:
    graph = gated(_get_timeout=0.01)
    ref = graph.execute(7)
    with pytest.raises(
        ChannelTimeoutError, match=r"_get_timeout \(COMPILED_DAG_GET_TIMEOUT\)=0.01"
    ):
        ref.get()
    gate.opened.set()
    assert ref.get(30) == 7


def test_a_late_get_is_a_timeout_error(gated) -> None:
    with pytest.raises(TimeoutError):
        gated().execute(1).get(0)


@pytest.mark.parametrize("timeout", [-2, -0.5, math.nan])
def test_a_time_out_of_range_is_refused(host, timeout) -> None:
    with compiled(host) as graph:
        ref = graph.execute(1)
        for ask in (ref.get, lambda seconds: get_many([ref], seconds)):
            with pytest.raises(ValueError, match=f"timeout={timeout!r}: give seconds, 0 to poll"):
                ask(timeout)


@pytest.mark.parametrize("timeout", [True, "1", [1]])
def test_a_time_that_is_no_number_is_refused(host, timeout) -> None:
    with compiled(host) as graph:
        ref = graph.execute(1)
        for ask in (ref.get, lambda seconds: get_many([ref], seconds)):
            with pytest.raises(TypeError, match="is not a number of seconds"):
                ask(timeout)


@pytest.mark.parametrize("timeout", [-1, 30, 30.0, math.inf])
def test_a_get_may_wait_for_ever(gated, gate, timeout) -> None:
    ref = gated().execute(7)
    waiting = Background(ref.get, timeout)
    gate.wait_entered()
    gate.opened.set()
    assert waiting.result() == 7


def test_ready_tells_whether_a_get_would_wait(gated, gate) -> None:
    graph = gated()
    ref = graph.execute(7)
    gate.wait_entered()
    assert not ref.ready()
    gate.opened.set()
    assert ref.get(30) == 7
    assert ref.ready()
