"""Actors that die, in every place of a graph and at every point of an execution.

What a graph promises: every pending and later get raises the one cause, which names the actor, the
node and how the process ended; survivors are usable at once, other graphs never notice, and what
was got stays valid. Nobody waits for a time-out: all waits here would end in one.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import runtime
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.errors import (
    ActorDiedError,
    ChannelError,
    ChannelTimeoutError,
    CollectiveError,
    DeserializationError,
    TaskError,
)
from tests.crew import Order, Rank, Worker, extremes
from tests.live import LONG_S, chain, died, make, make_ranks, pids_of, reduce, wait_until, where

pytestmark = pytest.mark.proc

POSITIONS = pytest.mark.parametrize("at", [1, 2, 3], ids=["first", "middle", "last"])


def compile_chain(workers, **options):
    return chain(workers).experimental_compile(**options)


def check_error(error, at, *, name=None, code=None):
    assert isinstance(error, ActorDiedError)
    assert isinstance(error, ChannelError)
    assert f"Worker({at})" in str(error)
    assert (error.signal, error.exit_code) == (name, code)
    assert (name or f"code {code}") in str(error)
    assert "compile again" in str(error)


def check_recovery(crew, at):
    """Compile again on the survivors and a new actor in the victim's place."""
    crew = [*crew[: at - 1], Worker.remote(at), *crew[at:]]
    assert len(pids_of(crew)) == len(crew)
    with compile_chain(crew) as dag:
        assert [dag.execute(n).get(timeout=LONG_S) for n in (0, 5)] == [123, 5123]


# --- at a point of an execution -------------------------------------------------------------------


@POSITIONS
@pytest.mark.parametrize(
    ("what", "name", "code"),
    [
        ("sigkill", "SIGKILL", None),
        ("sigsegv", "SIGSEGV", None),
        ("abort", "SIGABRT", None),
        ("exit", None, 3),
        ("sys_exit", None, 5),
        ("interrupt", None, 130),
        ("die_pickling", "SIGKILL", None),
    ],
)
def test_death_in_a_method(session, what, name, code, at):
    crew, bystander = make(3), Worker.remote(9)
    with compile_chain(crew) as dag, compile_chain([bystander]) as other:
        got = dag.execute(0)
        assert got.get(timeout=LONG_S) == 123
        refs = [dag.execute(Order(at, what)), dag.execute(5), dag.execute(6)]
        theirs = other.execute(0)
        errors = [died(ref) for ref in refs]
        errors.append(died(dag.execute(7)))
        assert {str(error) for error in errors} == {str(errors[0])}
        check_error(errors[0], at, name=name, code=code)
        assert f"Worker.work (node {at}" in errors[0].node
        assert "bound at live.py:" in errors[0].node
        assert errors[0].execution == 1
        assert "of execution 1" in str(errors[0])
        assert got.get() == 123
        assert theirs.get(timeout=LONG_S) == 9
        check_recovery(crew, at)
        assert other.execute(1).get(timeout=LONG_S) == 19


@POSITIONS
@pytest.mark.parametrize("point", ["die_before_publishing", "die_reading"])
def test_death_between_two_words_of_shared_memory(session, point, at):
    crew = make(3)
    with compile_chain(crew) as dag:
        assert dag.execute(np.ones(1 << 17)).get(timeout=LONG_S).shape == (1 << 17,)
        runtime.get(getattr(crew[at - 1], point).remote(), timeout=LONG_S)
        refs = [dag.execute(np.full(1 << 17, 2.0)), dag.execute(3)]
        for ref in refs:
            check_error(died(ref), at, name="SIGKILL")
        check_recovery(crew, at)


@POSITIONS
def test_sigkill_while_idle(session, at):
    crew = make(3)
    pid = pids_of(crew)[at - 1]
    with compile_chain(crew) as dag:
        assert dag.execute(0).get(timeout=LONG_S) == 123
        wait_until(lambda: set(where(dag).values()) == {"between executions"})
        os.kill(pid, signal.SIGKILL)
        error = died(dag.execute(1))
        check_error(error, at, name="SIGKILL")
        assert f"pid {pid}" in str(error)
        assert "between executions" in str(error)
        assert error.node is None
        assert error.execution is None
        check_recovery(crew, at)


@POSITIONS
def test_sigkill_before_the_first_execution(session, at):
    crew = make(3)
    pid = pids_of(crew)[at - 1]
    with compile_chain(crew) as dag:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: dag._deployment.fault)
        check_error(died(dag.execute(0)), at, name="SIGKILL")
    check_recovery(crew, at)


def test_a_sigkill_ends_a_blocked_get(session, tmp_path):
    crew = make(3)
    pid = pids_of(crew)[1]
    with compile_chain(crew) as dag:
        ref = dag.execute(Order(2, "wait", str(tmp_path / "never")))
        wait_until(lambda: "Worker.work" in where(dag)["Worker(2)"])
        os.kill(pid, signal.SIGKILL)
        error = died(ref)
        check_error(error, 2, name="SIGKILL")
        assert error.execution == 0


def test_a_segfault_shows_its_python_stack_and_last_words(session):
    crew = make(3)
    with compile_chain(crew) as dag:
        error = died(dag.execute(Order(2, "sigsegv")))
        assert "in obey" in error.stderr_tail
        assert "in obey" in str(error)


@POSITIONS
def test_death_while_the_actor_and_the_driver_hold_results(session, at):
    crew = make(3)
    pid = pids_of(crew)[at - 1]
    with InputNode() as inp:
        node = inp
        for worker in crew:
            node = worker.hold.bind(node)
    dag = node.experimental_compile()
    held = [dag.execute(np.full(1 << 17, float(n))).get(timeout=LONG_S) for n in range(5)]
    os.kill(pid, signal.SIGKILL)
    check_error(died(dag.execute(np.zeros(1 << 17))), at, name="SIGKILL")
    survivors = [worker for worker in crew if worker is not crew[at - 1]]
    for worker in survivors:
        values = runtime.get(worker.held_values.remote(), timeout=LONG_S)
        assert values[:5] == [(n, n) for n in range(5)]
    check_recovery(crew, at)
    dag.teardown()
    runtime.shutdown()
    assert extremes(held) == [(n, n) for n in range(5)]


# --- more than one graph, more than one death -----------------------------------------------------


def test_all_graphs_of_the_dead_actor_break_and_no_others(session):
    crew, bystander = make(3), Worker.remote(9)
    with (
        compile_chain(crew) as dag,
        compile_chain(crew[1:2]) as same_actor,
        compile_chain([crew[0], bystander]) as survivors,
    ):
        died(dag.execute(Order(2, "sigkill")))
        check_error(died(same_actor.execute(1)), 2, name="SIGKILL")
        assert survivors.execute(0).get(timeout=LONG_S) == 19


def test_the_first_death_stays_the_cause(session):
    crew = make(3)
    pids = pids_of(crew)
    with compile_chain(crew) as dag:
        first = died(dag.execute(Order(2, "sigkill")))
        os.kill(pids[0], signal.SIGTERM)
        with pytest.raises(ActorDiedError):
            runtime.get(crew[0].pid.remote(), timeout=LONG_S)
        assert str(died(dag.execute(1))) == str(first)


def test_a_killed_actor_is_reported_as_killed_by_the_caller(session):
    crew = make(3)
    with compile_chain(crew) as dag:
        assert dag.execute(0).get(timeout=LONG_S) == 123
        runtime.kill(crew[1])
        error = died(dag.execute(1))
        assert "Worker(2)" in str(error)
        assert "runtime.kill" in str(error)


def test_teardown_and_shutdown_of_a_broken_graph_are_quiet(session):
    crew = make(3)
    dag = compile_chain(crew)
    refs = [dag.execute(Order(1, "sigkill")), dag.execute(2)]
    first = died(refs[0])
    dag.teardown()
    assert dag.is_teardown
    for ref in refs:
        assert str(died(ref)) == str(first)
    dag.teardown(kill_actors=True)


def test_results_read_before_the_death_can_be_got_after_it(session):
    crew = make(3)
    with compile_chain(crew) as dag:
        early, late = dag.execute(0), dag.execute(1)
        assert late.get(timeout=LONG_S) == 1123  # reads the result of `early` on the way
        died(dag.execute(Order(3, "sigkill")))
        assert early.get(timeout=LONG_S) == 123
        assert early.get() == 123


# --- collectives ----------------------------------------------------------------------------------


def compile_collective(crew, size=1000, transport=None):
    return reduce(crew, size, transport=transport).experimental_compile()


def all_died(refs):
    errors = [died(ref) for ref in refs]
    assert {str(error) for error in errors} == {str(errors[0])}
    return errors[0]


@pytest.mark.parametrize("moment", ["before", "preflight", "gloo", "shm"])
def test_death_in_a_collective_of_four(session, moment, tmp_path):
    crew = make_ranks(4)
    size = 4_000_000 if moment in ("gloo", "shm") else 1000
    transport = "shm" if moment == "shm" else None
    for victim in (1, 2, 4):
        pids = pids_of(crew)
        with compile_collective(crew, size, transport) as dag:
            assert runtime.get(dag.execute(0), timeout=LONG_S) == [20.0] * 4
            release = tmp_path / f"{victim}"
            if moment == "before":
                refs = dag.execute(Order(victim, "sigkill"))
            elif moment == "preflight":
                refs = dag.execute(Order(victim % 4 + 1, "wait", str(release)))
                wait_until(lambda dag=dag: num_in_allreduce(dag) == 3)
                os.kill(pids[victim - 1], signal.SIGKILL)
            else:
                rank = crew[victim - 1]
                told = (
                    rank.die_in_gloo.remote() if moment == "gloo" else rank.die_at_meeting.remote(5)
                )
                runtime.get(told, timeout=LONG_S)
                refs = dag.execute(0)
            error = all_died([*refs, *dag.execute(1)])
            release.touch()
            assert dag.actors[victim - 1].label in str(error)
            assert (error.signal, error.execution) == ("SIGKILL", 1)
            if moment == "before":
                assert "Rank.grad" in error.node
            else:
                assert f"allreduce(SUM), rank {victim - 1} of 4" in error.node
            crew[victim - 1] = Rank.remote(victim)
            assert len(pids_of(crew)) == 4
    with compile_collective(crew) as dag:
        assert runtime.get(dag.execute(0), timeout=LONG_S) == [20.0] * 4


def num_in_allreduce(dag):
    return sum("allreduce" in text for text in where(dag).values())


def test_death_while_a_group_forms(session, tmp_path):
    crew = make_ranks(3)
    pids = pids_of(crew)
    blocked = crew[2].wait.remote(str(tmp_path / "never"))
    killer = threading.Timer(0.2, os.kill, (pids[2], signal.SIGKILL))
    killer.start()
    try:
        with pytest.raises(ActorDiedError, match=r"Rank\(3\)"):
            compile_collective(crew)
    finally:
        killer.join()
    with pytest.raises(ActorDiedError):
        runtime.get(blocked, timeout=LONG_S)
    with compile_collective(crew[:2]) as dag:
        assert runtime.get(dag.execute(0), timeout=LONG_S) == [6.0] * 2


@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_a_backend_that_fails_without_a_death_is_a_collective_error(session, backend):
    crew = make_ranks(2)
    with compile_collective(crew, 1_000_000, backend) as dag:
        assert runtime.get(dag.execute(0), timeout=LONG_S) == [6.0] * 2
        runtime.get(crew[1].fail_in.remote(backend), timeout=LONG_S)
        for ref in (*dag.execute(0), *dag.execute(0)):
            with pytest.raises(CollectiveError, match="compile the graph again"):
                ref.get(timeout=LONG_S)
    with compile_collective(crew) as dag:
        assert runtime.get(dag.execute(0), timeout=LONG_S) == [6.0] * 2


# --- exceptions of users --------------------------------------------------------------------------


@POSITIONS
@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("raise", ValueError, "was told to"),
        ("raise_locked", TaskError, "Locked: actor"),
        ("raise_two_arguments", TaskError, "TwoArguments: told to"),
        ("return_lock", TypeError, "value['deep'][0] of type _thread.lock"),
    ],
)
def test_what_a_method_raises_or_returns_leaves_the_graph_usable(session, what, kind, text, at):
    crew = make(3)
    with compile_chain(crew) as dag:
        refs = [dag.execute(0), dag.execute(Order(at, what)), dag.execute(5)]
        with pytest.raises(kind) as caught:
            refs[1].get(timeout=LONG_S)
        error = caught.value
        assert isinstance(error, TaskError)
        assert text in str(error)
        assert f"Worker({at})" in error.actor
        assert f"Worker({at})" in str(error)
        assert error.execution == 1
        if what.startswith("raise"):
            assert "in obey" in error.traceback_text
            assert f"Worker.work (node {at}" in error.node
        assert [refs[0].get(timeout=LONG_S), refs[2].get(timeout=LONG_S)] == [123, 5123]
        with pytest.raises(kind) as again:
            refs[1].get()
        assert again.value is error


def test_a_value_that_one_reader_cannot_rebuild_is_that_readers_error(session):
    source, refusing, other = make(3)
    runtime.get(refusing.refuse_fragile.remote(), timeout=LONG_S)
    with InputNode() as inp:
        value = source.work.bind(inp)
        outputs = [refusing.work.bind(value), other.hold.bind(value)]
        with MultiOutputNode(outputs).experimental_compile() as dag:
            refs = dag.execute(Order(1, "return_fragile"))
            with pytest.raises(TaskError) as caught:
                refs[0].get(timeout=LONG_S)
            assert isinstance(caught.value.cause, DeserializationError)
            assert "Worker.work" in str(caught.value)  # who sent it
            assert "Worker(2)" in str(caught.value)  # who could not read it
            assert "refused here" in str(caught.value)
            assert type(refs[1].get(timeout=LONG_S)).__name__ == "Fragile"
            assert runtime.get(dag.execute(0)[0], timeout=LONG_S) == 12


def test_a_result_that_the_driver_cannot_rebuild_is_an_error_of_that_execution(
    session, monkeypatch
):
    (worker,) = make(1)
    monkeypatch.setenv("REFUSE_FRAGILE", "1")
    with compile_chain([worker]) as dag:
        ref = dag.execute(Order(1, "return_fragile"))
        with pytest.raises(TaskError, match="refused here") as caught:
            ref.get(timeout=LONG_S)
        assert isinstance(caught.value.cause, DeserializationError)
        assert "driver" in str(caught.value)
        assert dag.execute(0).get(timeout=LONG_S) == 1


def test_an_input_that_cannot_be_sent_starts_nothing(session):
    crew = make(2)
    with compile_chain(crew) as dag:
        with pytest.raises(TypeError, match=r"value\[0\] of type _thread.lock"):
            dag.execute([threading.Lock()])
        assert dag.execute(0).get(timeout=LONG_S) == 12


def test_a_wrong_number_of_returns(session):
    first, second = make(2)
    with InputNode() as inp:
        left, right = first.pair.options(num_returns=2).bind(inp)
        outputs = [second.hold.bind(left), second.work.bind(right)]
        with MultiOutputNode(outputs).experimental_compile() as dag:
            for ref in dag.execute("one"):
                with pytest.raises(ValueError, match="num_returns=2") as caught:
                    ref.get(timeout=LONG_S)
                assert isinstance(caught.value, TaskError)
                assert "Worker.pair" in caught.value.node
            assert runtime.get(dag.execute("two"), timeout=LONG_S) == ["two", 12]


def test_one_branch_fails_and_the_other_delivers(session):
    source, left, right = make(3)
    with InputNode() as inp:
        value = source.work.bind(inp)
        outputs = [left.work.bind(value), right.work.bind(value)]
        with MultiOutputNode(outputs).experimental_compile() as dag:
            refs = dag.execute(Order(2, "raise"))
            with pytest.raises(ValueError, match="actor 2 was told to"):
                refs[0].get(timeout=LONG_S)
            assert refs[1].get(timeout=LONG_S) == Order(2, "raise")
            with pytest.raises(ValueError, match="actor 2 was told to"):
                runtime.get(dag.execute(Order(2, "raise")), timeout=LONG_S)
            assert runtime.get(dag.execute(0), timeout=LONG_S) == [12, 13]


# --- actors that are stopped ----------------------------------------------------------------------


@POSITIONS
def test_a_stopped_actor_is_named_and_goes_on_later(session, at):
    crew = make(3)
    pid = pids_of(crew)[at - 1]
    with compile_chain(crew) as dag:
        refs = [dag.execute(Order(at, "stop")), dag.execute(5)]
        wait_until(lambda: process_state(pid) == "T")
        for ref in refs:
            with pytest.raises(ChannelTimeoutError) as caught:
                ref.get(timeout=0.1)
            assert f"Worker({at}) is in Worker.work (node {at}" in caught.value.report
            assert caught.value.report in str(caught.value)
        os.kill(pid, signal.SIGCONT)
        assert refs[1].get(timeout=LONG_S) == 5123
        assert refs[0].get(timeout=LONG_S) == "stop"


def process_state(pid):
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2]
