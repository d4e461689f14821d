"""Actors that hang, in every way they can, and what is told about them."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

import runtime
from compiled_dag import DAGContext, GraphError, InputNode, MultiOutputNode
from compiled_dag.errors import ChannelTimeoutError
from tests.crew import Member, Order, Worker
from tests.live import LONG_S, chain, make, make_ranks, pids_of, reduce, wait_until, where
from tests.test_faults import process_state

pytestmark = pytest.mark.proc


def late(ref, timeout=1.0) -> ChannelTimeoutError:
    """Return the error of a get that is late, and not by much."""
    start = time.monotonic()
    with pytest.raises(ChannelTimeoutError) as caught:
        ref.get(timeout=timeout)
    assert time.monotonic() - start >= timeout
    assert str(caught.value).endswith(caught.value.report)
    return caught.value


@runtime.remote
class Slow:
    """Its constructor waits."""

    def __init__(self, path):
        from tests.crew import wait_for_file

        Path(path, "begun").touch()
        wait_for_file(str(Path(path, "never")))

    def work(self, value):
        return value


def test_a_constructor_that_hangs_is_named_with_its_stack(session, tmp_path, monkeypatch):
    monkeypatch.setattr(DAGContext.get_current(), "compile_timeout", 0.5)
    slow = Slow.remote(str(tmp_path))
    wait_until((tmp_path / "begun").exists)
    with pytest.raises(GraphError) as caught:
        chain([slow]).experimental_compile()
    text = str(caught.value)
    assert "actor Slow(1) did not load its program within compile_timeout=0.5 s" in text
    assert re.search(r"in the call Slow\.__init__, for \d", text)
    assert re.search(r'crew\.py", line \d+, in wait_for_file', text)
    runtime.kill(slow)


def test_an_actor_without_a_process_is_told_with_what_it_waits_for(session, monkeypatch):
    monkeypatch.setattr(DAGContext.get_current(), "compile_timeout", 0.1)
    count = int(runtime.cluster_resources()["CPU"])
    crew = [Worker.options(num_cpus=1).remote() for _ in range(count)]
    pids_of(crew)
    waits = Worker.options(num_cpus=1).remote()
    with pytest.raises(GraphError, match=r"Worker\(\d+\) was not up .* it needs .*; free are"):
        chain([waits]).experimental_compile()


@pytest.mark.filterwarnings("ignore:.*asks for more than the session has:UserWarning")
def test_an_actor_that_can_never_start_is_told_at_once(session):
    total = runtime.cluster_resources()["CPU"]
    huge = Worker.options(num_cpus=1000)

    @runtime.remote
    def compile_in_a_task(crew):
        chain(crew).experimental_compile()

    live = huge.remote(1)
    text = rf"Worker.* can never (start|run): .* \(CPU: 1000 of {total:g}\)\. .*tart the session"
    for actor in (live, huge.bind(1)):
        with pytest.raises(GraphError, match=text):
            chain([actor]).experimental_compile()
    with pytest.raises(GraphError, match=text):
        runtime.get(compile_in_a_task.remote([live]), timeout=LONG_S)
    runtime.kill(live)
    with pytest.raises(runtime.exceptions.ActorDiedError, match=r"runtime\.kill"):
        chain([live]).experimental_compile()


def test_a_stopped_actor_is_named_with_what_the_kernel_says_and_goes_on_later(session):
    crew = make(3)
    pid = pids_of(crew)[1]
    with chain(crew).experimental_compile() as dag:
        refs = [dag.execute(Order(2, "stop")), dag.execute(5)]
        wait_until(lambda: process_state(pid) == "T")
        report = late(refs[1]).report
        first, *lines = report.splitlines()
        assert re.fullmatch(
            r"executions 0 to 1 of graph \w+ are unfinished: Worker\(2\) is in Worker\.work \(node "
            r"2, bound at live\.py:\d+\) \(stopped by a signal; SIGCONT lets it go on \(kernel "
            r"state T \(stopped\).*\)\), for \d+\.\d{3} s",
            first,
        )
        assert "    finished by Worker(1)" in lines
        waits = "Worker(3) has not begun it: waits for Worker.work#2 from Worker(2)"
        assert re.search(rf"    {re.escape(waits)}, for \d\.\d{{3}} s\n", report)
        assert re.fullmatch(r"  execution 0, submitted \d\.\d{3} s ago:", lines[0])
        driver = r" {4}driver waits for Worker\.work#3 from Worker\(3\), for \d\.\d{3} s"
        assert re.fullmatch(driver, lines[1])
        os.kill(pid, signal.SIGCONT)
        assert refs[1].get(timeout=LONG_S) == 5123
        assert refs[0].get(timeout=LONG_S) == "stop"


@pytest.mark.parametrize(("what", "function"), [("hold_gil", "hold_gil"), ("search", "match")])
def test_code_that_holds_the_gil_is_shown_and_teardown_is_bounded(
    session, monkeypatch, what, function
):
    monkeypatch.setattr(DAGContext.get_current(), "teardown_timeout", 0.2)
    crew = make(2)
    pids = pids_of(crew)
    dag = chain(crew).experimental_compile()
    ref = dag.execute(Order(2, what))
    wait_until(lambda: "Worker.work" in where(dag)["Worker(2)"])
    for _ in range(2):
        report = late(ref).report
        assert "Worker(2) is in Worker.work (node 2" in report.splitlines()[0]
        assert re.search(rf"line \d+, in {function}\n", report)
        assert re.search(r'crew\.py", line \d+, in work\n', report)
    assert re.search(rf"line \d+, in {function}\n", str(dag.hang_report()))
    with pytest.warns(RuntimeWarning) as caught:
        dag.teardown()
    text = str(caught[0].message)
    assert "actor Worker(2) is still in user code: Worker.work (node 2, bound at live.py:" in text
    assert re.search(rf"line \d+, in {function}", text)
    assert process_state(pids[1]) != "Z"
    runtime.kill(crew[1])
    assert runtime.get(crew[0].pid.remote(), timeout=LONG_S) == pids[0]


def test_a_rank_that_does_not_come_to_a_collective_is_named(session, tmp_path):
    ranks = make_ranks(2)
    release = tmp_path / "release"
    with reduce(ranks).experimental_compile() as dag:
        refs = dag.execute(Order(2, "wait", str(release)))
        report = late(refs[0]).report
        assert "Rank(2) is in Rank.grad" in report.splitlines()[0]
        assert "Rank(1) waits in allreduce(SUM), rank 0 of 2 for Rank(2), for " in report
        assert "in wait_for_file" in report
        release.touch()
        assert runtime.get(refs, timeout=LONG_S) == [6.0, 6.0]


@runtime.remote
class Restarted(Member):
    """Comes back after its death."""


def test_stacks_of_actors_that_were_restarted_started_fresh_or_have_children(session, tmp_path):
    again = Restarted.options(max_restarts=1).remote(1)
    fresh = Restarted.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}}).remote(2)
    (pid,) = pids_of([again])
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return runtime.get(again.pid.remote(), timeout=LONG_S) != pid
        except runtime.exceptions.ActorUnavailableError:
            return False

    wait_until(is_back)
    runtime.get([again.fork_and_drop.remote(2), fresh.fork_and_drop.remote(1)], timeout=LONG_S)
    release = str(tmp_path / "release")
    with InputNode() as inp:
        outputs = [again.work.bind(inp), fresh.work.bind(inp)]
    with MultiOutputNode(outputs).experimental_compile() as dag:
        before = runtime.get(again.footprint.remote(), timeout=LONG_S)[0]
        refs = [dag.execute(Order(at, "wait", release))[at - 1] for at in (1, 2)]
        wait_until(lambda: str(dag.hang_report()).count("in wait_for_file") == 2)
        (tmp_path / "release").touch()
        for ref in refs:
            assert ref.get(timeout=LONG_S) == "wait"
        assert runtime.get(again.footprint.remote(), timeout=LONG_S)[0] == before


@runtime.remote(max_concurrency=2)
class Owner:
    """Drives a graph of others, from its own process."""

    def start(self, workers, order):
        self.dag = chain(workers).experimental_compile()
        self.ref = self.dag.execute(order)

    def look(self):
        return str(self.dag.hang_report())

    def end(self):
        value = self.ref.get(timeout=LONG_S)
        self.dag.teardown()
        return value


def test_a_graph_that_an_actor_drives_has_reports_with_stacks_too(session, tmp_path):
    crew, owner = make(2), Owner.remote()
    order = Order(2, "wait", str(tmp_path / "release"))
    runtime.get(owner.start.remote(crew, order), timeout=LONG_S)
    wait_until(lambda: "in wait_for_file" in runtime.get(owner.look.remote(), timeout=LONG_S))
    text = runtime.get(owner.look.remote(), timeout=LONG_S)
    assert "Worker(2) is in Worker.work (node 2" in text.splitlines()[0]
    (tmp_path / "release").touch()
    assert runtime.get(owner.end.remote(), timeout=LONG_S) == "wait"
