"""Traces of graphs at work: actors on threads, real channels."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise

import pytest

from compiled_dag import CompiledDAGRef, InputNode, MultiOutputNode
from compiled_dag.trace.record import Lane, Trace
from tests.compiled_dag.trace.traces import names, trace_of
from tests.gates import Background, Gate, compiled, one_method, soon
from tests.graphs import Worker

get_many = CompiledDAGRef.get_many


def test_everybody_records_every_step_of_every_execution(host) -> None:
    first, second = host.actor(Worker(1)), host.actor(Worker(2))
    with InputNode() as inp:
        output = second.add.bind(first.add.bind(inp))
    with output.experimental_compile() as graph:
        for number in range(3):
            assert graph.execute(number).get(30) == number + 3
    trace = trace_of(graph)
    assert [lane.label for lane in trace.lanes] == [
        "driver: execute", "driver: get", "Worker(1)", "Worker(2)",
    ]  # fmt: skip
    assert [lane.pid for lane in trace.lanes] == [os.getpid()] * 4
    each = [(0, 0), (1, 0), (2, 0)]
    assert [names(lane) for lane in trace.lanes] == [
        ["execute"] * 3,
        ["read Worker.add#2"] * 3,
        ["read input", "Worker.add", "write Worker.add#1"] * 3,
        ["read Worker.add#1", "Worker.add", "write Worker.add#2"] * 3,
    ]
    for lane in trace.lanes:
        assert sorted({(span.execution, 0) for span in lane.spans}) == each
        check_times(lane)
    compute = trace.lanes[2].operations[1]
    assert (compute.kind, compute.node, compute.step) == ("compute", 1, 2)
    assert compute.source.startswith("test_snapshot.py:")


def check_times(lane: Lane) -> None:
    """Spans are in order, apart, and not negative."""
    last = 0
    for span in lane.spans:
        assert last <= span.begin_ns <= span.arrived_ns <= span.end_ns
        last = span.end_ns


def test_a_message_is_read_after_its_write_began(host) -> None:
    actors = [host.actor(Worker(number)) for number in range(3)]
    with InputNode() as inp:
        value = inp
        for actor in actors:
            value = actor.add.bind(value)
    with value.experimental_compile() as graph:
        for number in range(20):
            graph.execute(number).get(30)
    trace = trace_of(graph)
    began = {
        (channel, span.execution): span.begin_ns
        for lane in trace.lanes
        for span in lane.spans
        if lane.operations[span.operation].kind == "write"
        for channel in lane.operations[span.operation].channels
    }
    reads = [
        (span, lane.operations[span.operation].channels[0])
        for lane in trace.lanes
        for span in lane.spans
        if lane.operations[span.operation].kind == "read"
    ]
    assert len(reads) == 4 * 20
    for span, channel in reads:
        assert began[channel, span.execution] < span.end_ns


def test_a_method_that_raised_is_marked_and_what_needed_it_is_left_out(host) -> None:
    worker = host.actor(Gate())
    with InputNode() as inp:
        failed = worker.fail.bind(inp)
        output = MultiOutputNode([worker.echo.bind(failed), worker.echo.bind(inp)])
    with output.experimental_compile() as graph:
        refs = graph.execute(1)
        with pytest.raises(ValueError, match="1 is bad"):
            refs[0].get(30)
        assert refs[1].get(30) == 1
    lane = trace_of(graph).lanes[2]
    computes = [
        (lane.operations[span.operation].name, span.state)
        for span in lane.spans
        if lane.operations[span.operation].kind == "compute"
    ]
    assert computes == [("Gate.fail", "failed"), ("Gate.echo", "ok")]


def test_what_has_not_ended_is_running(host) -> None:
    gate = Gate()
    with compiled(host, gate, "hold") as graph:
        ref = graph.execute(7)
        gate.wait_entered()
        (span,) = trace_of(graph).lanes[2].spans
        assert (span.state, span.execution) == ("running", 0)
        assert names(trace_of(graph).lanes[2]) == ["Gate.hold"]
        gate.opened.set()
        assert ref.get(30) == 7
    assert [span.state for span in trace_of(graph).lanes[2].spans] == ["ok"] * 3


def test_an_execution_broken_off_by_teardown_is_kept_as_far_as_it_came(host) -> None:
    first, second = host.actor(gate := Gate()), host.actor(Worker(1))
    with InputNode() as inp:
        output = MultiOutputNode([second.join.bind(second.echo.bind(inp), first.hold.bind(inp))])
    graph = output.experimental_compile()
    graph.execute(1)
    gate.wait_entered()

    def has_done(*expected: str) -> bool:
        lane = next(lane for lane in trace_of(graph).lanes if lane.label == "Worker(2)")
        return names(lane) == list(expected)

    until = soon()
    while not has_done("read Gate.hold#2"):  # by its progress words
        assert time.monotonic() < until
    closing = Background(graph.teardown)
    while not has_done("read input", "Worker.echo"):  # by its ring
        assert time.monotonic() < until
    gate.opened.set()
    closing.result()
    assert has_done("read input", "Worker.echo")


def test_executions_that_follow_fast_are_sampled(host) -> None:
    count = 1000  # a ring has room for all, where a slow machine records all
    with compiled(host) as graph:
        for number in range(count):
            graph.execute(number).get(30)
    driver, got, actor = trace_of(graph).lanes
    check_times(actor)
    for lane in (driver, got, actor):
        executions = sorted({span.execution for span in lane.spans})
        assert executions[:8] == list(range(8)), "the first are all recorded, however fast"
        assert executions[-1] >= count - 16
        assert all(b - a == 1 or b % 16 == 0 for a, b in pairwise(executions))
    kept = [{span.execution for span in lane.spans} for lane in (driver, got, actor)]
    # Around a change of the mask one may record what another does not.
    assert len(kept[0] & kept[1] & kept[2]) > len(kept[0] | kept[1] | kept[2]) * 0.8


def test_a_ring_that_is_full_keeps_the_last(host, monkeypatch) -> None:
    monkeypatch.setattr("compiled_dag.trace.log.SAMPLED", 0)
    with compiled(host) as graph:
        for number in range(3000):
            graph.execute(number).get(30)
    driver, got, actor = trace_of(graph).lanes
    executions = sorted({span.execution for span in actor.spans})
    assert executions == list(range(executions[0], 3000))
    assert len(executions) == 64 * 1024 // (8 * 6) - 1
    assert len(driver.spans) == 2048
    assert len(got.spans) == 3000  # of up to 2048 per channel
    check_times(actor)


def test_a_trace_can_be_taken_again_and_again_while_the_graph_works(host) -> None:
    with compiled(host) as graph:
        ended = threading.Event()

        def work() -> None:
            for number in range(4000):
                graph.execute(number).get(30)
            ended.set()

        thread = threading.Thread(target=work)
        thread.start()
        taken = 0
        while not ended.is_set():
            for lane in trace_of(graph).lanes:
                check_times(lane)
            taken += 1
        thread.join(120)
        assert taken


def test_gets_of_several_threads_do_not_overlap_in_their_lane(host) -> None:
    with one_method(host.actor(Worker(1))).experimental_compile() as graph:
        refs = [graph.execute(number) for number in range(8)]
        threads = [threading.Thread(target=ref.get, args=(30,)) for ref in reversed(refs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    lane: Lane = trace_of(graph).lanes[1]
    assert [span.execution for span in lane.spans] == list(range(8))
    check_times(lane)


def test_traces_are_plain_data(host) -> None:
    with compiled(host) as graph:
        graph.execute(1).get(30)
        trace: Trace = trace_of(graph)
    assert trace.channels == ("input", "Worker.echo#1")
    assert trace.graph == graph.get_id()
