"""What is told about graphs that are up: on request, with time-outs, and how much of it."""

from __future__ import annotations

import re
import time

import pytest
import torch

from collective import allreduce
from compiled_dag import (
    CapacityExceededError,
    ChannelTimeoutError,
    InputNode,
    MultiOutputNode,
    observer,
)
from compiled_dag.errors import SubmitTimeoutError
from tests.gates import Background, one_method, soon
from tests.graphs import Worker

LATE_S = 0.05
"""A time-out, of which there are full reports if the observer is told that it is long."""


@pytest.fixture
def long_timeouts(monkeypatch):
    """Have `LATE_S` count as long."""
    monkeypatch.setattr(observer, "FULL_S", LATE_S)
    monkeypatch.setattr("compiled_dag.fetch.FULL_S", LATE_S)
    monkeypatch.setattr("compiled_dag.fetch.LEAD_S", LATE_S / 2)


def wait_for(graph, text: str) -> str:
    """Return the report as soon as it says `text`."""
    found = [""]

    def says() -> bool:
        found[0] = str(graph._deployment.observer.report(stacks=False))
        return text in found[0]

    assert graph._host.waiter.until(says, lambda: None, soon()), found[0]
    return found[0]


def test_a_report_says_who_waits_for_whom_with_the_stack_of_who_is_to_blame(host, gate) -> None:
    slow, waits, idle = host.actor(gate), host.actor(Worker()), host.actor(Worker())
    with InputNode() as inp:
        held = slow.hold.bind(inp)
        output = idle.echo.bind(waits.join.bind(waits.echo.bind(inp), held))
    with output.experimental_compile() as graph:
        assert str(graph.hang_report()).splitlines() == [
            f"graph {graph.get_id()}: all 0 executions are finished",
            *(f"  {name} is idle" for name in ("Gate(1)", "Worker(2)", "Worker(3)")),
        ]
        graph.execute(0)
        gate.wait_entered()
        wait_for(graph, "Worker(2) waits for Gate.hold#1 from Gate(1), for ")
        host.stacks_taken.clear()
        report = graph.hang_report()
        assert host.stacks_taken == [slow.actor_id]
        assert report.blamed == ("Gate(1)",)
        lines = str(report).splitlines()
        assert re.fullmatch(
            r"execution 0 of graph \w+ is unfinished: Gate\(1\) is in Gate\.hold \(node 1, bound "
            r"at test_\w+\.py:\d+\), for \d+\.\d{3} s",
            lines[0],
        )
        assert re.search(r'gates.py", line \d+, in hold\n', str(report))
        assert "    Worker(3) has not begun it: waits for Worker.join#" in str(report)
        assert "    driver waits for Worker.echo#4 from Worker(3)" in lines
        gate.opened.set()


def test_a_report_names_ranks_that_wait_in_a_collective_and_the_dead(host, gate) -> None:
    quick, slow = host.actor(Worker()), host.actor(gate)
    with InputNode() as inp:
        brought = [quick.echo.bind(inp), slow.hold.bind(inp)]
        output = MultiOutputNode(allreduce.bind(brought))
    with output.experimental_compile() as graph:
        graph.execute(torch.ones(2))
        gate.wait_entered()
        wait_for(graph, "Worker(1) waits in allreduce(SUM), rank 0 of 2 for Gate(2), for ")
        host.report_death(slow.actor_id)
        report = graph.hang_report()
        assert [actor.state for actor in report.actors] == ["waiting", "dead"] or (
            report.actors[1].state == "dead"  # the rank may have left already
        )
        assert "Gate(2) is dead: actor Gate(2) was killed" in str(report)
        assert str(report).startswith("graph ")
        assert "lost actor Gate(2)" in str(report)
        gate.opened.set()


def test_a_graph_that_was_torn_down_has_a_report_too(host) -> None:
    with one_method(host.actor(Worker())).experimental_compile() as graph:
        graph.execute(1).get(30)
    assert re.match(rf"graph {graph.get_id()} was torn down \d", str(graph.hang_report()))


def test_an_actor_that_is_in_an_ordinary_call_is_told_with_it(host, gate) -> None:
    actor = host.actor(gate)
    with one_method(actor).experimental_compile() as graph:
        actor.hold.remote(1)
        gate.wait_entered()
        ref = graph.execute(1)
        report = graph.hang_report()
        assert report.blamed == ("Gate(1)",)
        assert "has not begun it, although input is there: in the call Gate.hold" in str(report)
        assert report.actors[0].stack
        gate.opened.set()
        assert ref.get(30) == 1


# --- time-outs ------------------------------------------------------------------------------------


def late(graph, ref, timeout: float | None = LATE_S) -> ChannelTimeoutError:
    with pytest.raises(ChannelTimeoutError) as raised:
        ref.get(timeout)
    assert str(raised.value).endswith(raised.value.report)
    return raised.value


def test_a_long_time_out_is_told_in_full_and_in_time(gated, gate, host, long_timeouts) -> None:
    graph = gated(_get_timeout=LATE_S)
    ref = graph.execute(7)
    gate.wait_entered()
    for timeout in (LATE_S, None):
        error = late(graph, ref, timeout)
        assert re.search(r'gates.py", line \d+, in hold', error.report)
        assert "timeout" in str(error)
    gate.opened.set()
    assert ref.get(30) == 7


def test_the_full_report_is_begun_before_the_deadline(gated, gate, monkeypatch, long_timeouts):
    graph = gated()
    ref = graph.execute(7)
    gate.wait_entered()
    monkeypatch.setattr("compiled_dag.fetch.LEAD_S", 60 - LATE_S)
    begun = []

    def report(_, **options) -> str:
        begun.append((time.monotonic(), options))
        gate.opened.set()
        return ""

    monkeypatch.setattr(type(graph._deployment.observer), "report", report)
    start = time.monotonic()
    assert ref.get(60) == 7
    ((when, options),) = begun
    assert start + LATE_S <= when < start + 60
    assert options["stacks"]
    assert start + 60 <= options["deadline"] <= time.monotonic() + 60 + observer.GRACE_S


def test_a_result_that_comes_while_the_report_is_made_is_got(
    gated, gate, monkeypatch, long_timeouts
) -> None:
    graph = gated()
    ref = graph.execute(7)
    gate.wait_entered()

    def report(_, **_options) -> str:
        gate.opened.set()
        assert graph._host.waiter.until(ref.ready, lambda: None, soon())
        return "a report"

    monkeypatch.setattr(type(graph._deployment.observer), "report", report)
    assert ref.get(LATE_S) == 7


def test_full_reports_are_rare(gated, gate) -> None:
    graph = gated()
    graph.execute(7)
    gate.wait_entered()
    look, now = graph._deployment.observer, time.monotonic()
    lengths = [len(look.late(1.0, now + later).splitlines()) for later in (0, 0.9, 1, 1.9, 2.5)]
    assert [length > 1 for length in lengths] == [True, False, True, False, True]
    gate.opened.set()


def test_a_short_time_out_is_told_in_a_line_and_a_poll_not_at_all(gated, gate, host) -> None:
    graph = gated(_get_timeout=0)
    ref = graph.execute(7)
    gate.wait_entered()
    host.stacks_taken.clear()
    report = late(graph, ref, 0.01).report
    assert re.fullmatch(r"execution 0 of graph .*: Gate\(1\) is in Gate\.hold .*, for .* s", report)
    for timeout in (0, None):
        assert late(graph, ref, timeout).report == ""
    assert host.stacks_taken == []
    gate.opened.set()
    assert ref.get(30) == 7


def test_several_threads_that_are_late_at_once_all_get_their_error(
    gated, gate, long_timeouts
) -> None:
    graph = gated()
    refs = [graph.execute(n) for n in range(4)]
    gate.wait_entered()
    reports = [one.result().report for one in [Background(late, graph, ref) for ref in refs]]
    assert sum(len(report.splitlines()) > 1 for report in reports) >= 1
    assert all("Gate.hold" in report for report in reports)
    gate.opened.set()
    assert [ref.get(30) for ref in refs] == [0, 1, 2, 3]


def test_an_execute_that_finds_no_room_in_time_says_who_holds_it_up(gated, gate) -> None:
    graph = gated(_max_inflight_executions=1, _capacity_policy="block", _submit_timeout=0.01)
    ref = graph.execute(7)
    gate.wait_entered()
    with pytest.raises(SubmitTimeoutError, match="Gate.hold") as raised:
        graph.execute(8)
    assert isinstance(raised.value, CapacityExceededError)
    assert isinstance(raised.value, ChannelTimeoutError)
    assert "_submit_timeout (COMPILED_DAG_SUBMIT_TIMEOUT)=0.01 s" in str(raised.value)
    assert raised.value.report in str(raised.value)
    gate.opened.set()
    assert ref.get(30) == 7


# --- waits, for circles ---------------------------------------------------------------------------


def test_a_graph_tells_who_waits_in_its_steps(host, gate) -> None:
    slow, waits = host.actor(gate), host.actor(Worker())
    with InputNode() as inp:
        output = waits.join.bind(waits.echo.bind(inp), slow.hold.bind(inp))
    with output.experimental_compile() as graph:
        (source,) = host.wait_sources.values()
        assert source() == []
        graph.execute(0)
        gate.wait_entered()
        wait_for(graph, "Worker(2) waits for ")
        (wait,) = source()
        assert (wait.actor_id, wait.on) == (waits.actor_id, slow.actor_id)
        assert "waits for Gate.hold" in wait.text
        gate.opened.set()
    assert not host.wait_sources
