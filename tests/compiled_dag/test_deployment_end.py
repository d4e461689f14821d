"""How graphs end: torn down, or broken by a death; and what is told about them meanwhile."""

from __future__ import annotations

import gc
import re
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from collective import allreduce
from compiled_dag import (
    ChannelClosedError,
    CompiledDAGRef,
    DAGContext,
    GraphActorDiedError,
    GraphError,
    InputNode,
    MultiOutputNode,
)
from tests.gates import Background, ask, one_method, soon
from tests.graphs import Worker, chain

SIZES = [3, 3000, 100_000, 5_000_000]
"""Bytes of a result: inline, in a slot, leased, in a slot that grew."""


def arrive(graph, *refs) -> None:
    """Wait until the results of `refs` are there, without getting them."""
    assert graph._host.waiter.until(lambda: all(ref.ready() for ref in refs), lambda: None, soon())


# --- the end --------------------------------------------------------------------------------------


def test_a_graph_that_was_torn_down_says_so(host) -> None:
    graph = one_method(host.actor(Worker())).experimental_compile()
    ref = graph.execute(1)
    assert not graph.is_teardown
    graph.teardown()
    assert graph.is_teardown
    with pytest.raises(
        ChannelClosedError, match=r"graph \w+ was torn down \d+\.\d s ago: compile again$"
    ):
        graph.execute(1)
    for timeout in (None, 0, 10, -1):
        with pytest.raises(ChannelClosedError, match="was torn down"):
            ref.get(timeout)


def test_a_graph_is_torn_down_once(host) -> None:
    graph = one_method(host.actor(Worker())).experimental_compile()
    for _ in range(3):
        graph.teardown()
    with graph:
        pass


def test_whoever_sees_an_actor_free_may_claim_it(host, monkeypatch) -> None:
    graph = one_method(host.actor(Worker())).experimental_compile()
    claimed, submit = [set(host.claims)], host.submit

    def note(*args, **kwargs):
        claimed.append(set(host.claims))
        return submit(*args, **kwargs)

    monkeypatch.setattr(host, "submit", note)
    graph.teardown()
    assert [len(one) for one in claimed] == [1, 0]


def test_a_wrong_teardown_timeout_leaves_the_graph_up(host, monkeypatch) -> None:
    with one_method(host.actor(Worker())).experimental_compile() as graph:
        with monkeypatch.context() as patch:
            patch.setattr(DAGContext.get_current(), "teardown_timeout", "soon")
            with pytest.raises(GraphError, match="teardown_timeout='soon'"):
                graph.teardown()
        assert graph.execute(1).get(30) == 1


def test_leaving_the_block_tears_down_whatever_happened(host) -> None:
    graph = one_method(host.actor(Worker())).experimental_compile()
    with pytest.raises(ZeroDivisionError), graph:
        raise ZeroDivisionError
    assert graph.is_teardown


def test_a_value_that_was_got_stays(host) -> None:
    with one_method(host.actor(Worker())).experimental_compile() as graph:
        ref = graph.execute(np.ones(100_000))
        value = ref.get(30)
    assert ref.get() is value
    assert value.sum() == 100_000


@pytest.mark.parametrize("size", SIZES)
def test_a_result_that_arrived_and_was_not_got_is_gone(host, size) -> None:
    with one_method(host.actor(Worker())).experimental_compile() as graph:
        ref = graph.execute(b"x" * size)
        arrive(graph, ref)
    for timeout in (None, 0, 10):
        with pytest.raises(ChannelClosedError, match="was torn down"):
            ref.get(timeout)


def test_a_full_graph_that_was_torn_down_says_that_it_was_torn_down(host) -> None:
    with one_method(host.actor(Worker())).experimental_compile(_max_inflight_executions=1) as graph:
        ref = graph.execute(1)
    with pytest.raises(ChannelClosedError, match="was torn down"):
        graph.execute(2)
    del ref


@pytest.mark.parametrize("timeout", [None, 20, -1])
def test_teardown_ends_a_get_that_waits_in_another_thread(host, gate, timeout) -> None:
    graph = one_method(host.actor(gate), "hold").experimental_compile(_get_timeout=-1)
    ref = graph.execute(1)
    gate.wait_entered()
    waiting = Background(ref.get, timeout)
    assert waiting.running(0.02)
    ending = Background(graph.teardown)
    with pytest.raises(ChannelClosedError, match="was torn down"):
        waiting.result()
    gate.opened.set()
    ending.result()


def test_teardown_ends_an_execute_that_waits_for_room(host, gate) -> None:
    graph = one_method(host.actor(gate), "hold").experimental_compile(
        _max_inflight_executions=1, _capacity_policy="block", _submit_timeout=-1
    )
    ref = graph.execute(1)
    gate.wait_entered()
    waiting = Background(graph.execute, 2)
    assert waiting.running(0.02)
    ending = Background(graph.teardown)
    with pytest.raises(ChannelClosedError, match="was torn down"):
        waiting.result()
    gate.opened.set()
    ending.result()
    del ref


def test_teardown_ends_an_actor_that_waits_for_another(host, gate) -> None:
    slow, waits = host.actor(gate), host.actor(Worker())
    with InputNode() as inp:
        output = waits.join.bind(waits.echo.bind(inp), slow.hold.bind(inp))
    graph = output.experimental_compile()
    graph.execute(1)
    gate.wait_entered()
    ending = Background(graph.teardown)
    assert ask(waits) == 5
    gate.opened.set()
    ending.result()


def test_teardown_of_an_actor_in_user_code_is_bounded_and_names_it(host, gate, monkeypatch) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "teardown_timeout", 0.05)
    actor = host.actor(gate)
    graph = one_method(actor, "hold").experimental_compile()
    graph.execute(1)
    gate.wait_entered()
    where = r"Gate\.hold \(node 1, bound at gates\.py:\d+\), execution 0\n"
    stack = r'(.*\n)*.*gates\.py", line \d+, in hold'
    warning = rf"but actor Gate\(1\) is still in user code: {where}{stack}"
    with pytest.warns(RuntimeWarning, match=warning):
        graph.teardown()
    gate.opened.set()
    assert ask(actor) == 5
    assert actor.resources == {}


def test_teardown_of_an_actor_busy_elsewhere_does_not_say_that_it_is_in_the_graph(
    host, gate, monkeypatch
) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "teardown_timeout", 0.05)
    actor = host.actor(gate)
    graph = one_method(actor, "hold").experimental_compile()
    actor.hold.remote(1)
    gate.wait_entered()
    with pytest.warns(RuntimeWarning, match=r"Gate\(1\) does not answer: in the call Gate\.hold"):
        graph.teardown()
    gate.opened.set()
    assert ask(actor) == 5
    assert actor.resources == {}


def test_teardown_leaves_nothing_in_the_actors_and_they_stay_usable(host) -> None:
    actors = [host.actor(Worker(number)) for number in range(3)]
    with chain(actors).experimental_compile() as graph:
        graph.execute(1).get(30)
    assert [ask(actor) for actor in actors] == [5, 5, 5]
    assert [actor.resources for actor in actors] == [{}, {}, {}]


def test_teardown_gives_the_memory_back_without_the_collector(host) -> None:
    actors = [host.actor(Worker()) for _ in range(2)]
    with InputNode() as inp:
        values = [actor.echo.bind(inp) for actor in actors]
        output = MultiOutputNode([*values, *allreduce.bind(values)])
    gc.disable()
    try:
        graph = output.experimental_compile()
        CompiledDAGRef.get_many(graph.execute(torch.ones(1_000_000)), 30)
        assert graph_mappings()
        graph.teardown()
        del graph
        assert [ask(actor) for actor in actors] == [5, 5]
        assert graph_mappings() == []
    finally:
        gc.enable()


def graph_mappings() -> list[str]:
    """Return what this process maps of graphs and groups."""
    maps = Path("/proc/self/maps").read_text()
    return re.findall(r"memfd:compiled-dag-(?:graph|group)", maps)


def test_teardown_kills_the_actors_if_asked_to(host) -> None:
    actors = [host.actor(Worker(number)) for number in range(2)]
    chain(actors).experimental_compile().teardown(kill_actors=True)
    assert all(actor.error is not None for actor in actors)


# --- death ----------------------------------------------------------------------------------------


def test_a_death_between_executions_is_what_every_get_raises(host) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    graph = chain([first, second]).experimental_compile()
    got, pending = graph.execute(1), graph.execute(2)
    assert got.get(30) == 1
    host.kill(second.actor_id)
    for ref in (pending, graph.execute(3), graph.execute(4)):
        for timeout in (None, 0, 10, -1):
            with pytest.raises(GraphActorDiedError, match=r"lost actor Worker\(2\) between exec"):
                ref.get(timeout)
    assert got.get() == 1
    graph.teardown()


def test_a_death_says_what_died_how_in_which_node_of_which_execution(host, gate) -> None:
    actor = host.actor(gate)
    graph = one_method(actor, "hold").experimental_compile()
    ref = graph.execute(0)
    gate.wait_entered()
    host.report_death(actor.actor_id)
    with pytest.raises(GraphActorDiedError) as raised:
        ref.get(30)
    error = raised.value
    assert error.node.startswith("Gate.hold (node 1, bound at gates.py:")
    assert (error.execution, error.signal) == (0, "SIGKILL")
    assert f"lost actor Gate(1) in {error.node} of execution 0: was killed" in str(error)
    assert "its other actors stay usable: compile again on them" in str(error)
    assert "".join(traceback.format_exception(error)).count("was killed") == 1
    gate.opened.set()
    graph.teardown()


def test_a_death_wakes_everybody_who_waits(host, gate) -> None:
    slow, other = host.actor(gate), host.actor(Worker())
    with InputNode() as inp:
        output = MultiOutputNode([slow.hold.bind(inp), other.join.bind(other.echo.bind(inp), inp)])
    graph = output.experimental_compile(
        _max_inflight_executions=1, _capacity_policy="block", _submit_timeout=-1
    )
    held, _ = graph.execute(0)
    gate.wait_entered()
    waiting = [Background(held.get, -1), Background(graph.execute, 1)]
    assert all(one.running(0.02) for one in waiting)
    host.report_death(slow.actor_id)
    for one in waiting:
        with pytest.raises(GraphActorDiedError, match=r"lost actor Gate\(1\)"):
            one.result()
    gate.opened.set()
    graph.teardown()


def test_the_first_death_is_the_cause_for_good(host) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    graph = chain([first, second]).experimental_compile()
    ref = graph.execute(1)
    host.kill(second.actor_id)
    host.kill(first.actor_id)
    with pytest.raises(GraphActorDiedError, match=r"lost actor Worker\(2\)"):
        ref.get(30)
    graph.teardown()
    with pytest.raises(GraphActorDiedError, match=r"lost actor Worker\(2\)"):
        ref.get(30)
    with pytest.raises(GraphActorDiedError, match=r"lost actor Worker\(2\)"):
        graph.execute(2).get(30)


def test_a_result_that_was_kept_on_the_driver_survives_a_death(host) -> None:
    actor = host.actor(Worker(1))
    graph = one_method(actor).experimental_compile()
    early, late = graph.execute("early"), graph.execute("late")
    assert late.get(30) == "late"  # reads the early one too
    host.kill(actor.actor_id)
    assert early.get(30) == "early"
    graph.teardown()


def test_a_death_breaks_all_graphs_of_the_actor_and_no_others(host) -> None:
    dies, lives = host.actor(Worker()), host.actor(Worker())
    one = one_method(dies).experimental_compile()
    both = chain([dies, lives]).experimental_compile()
    other = one_method(lives).experimental_compile()
    host.kill(dies.actor_id)
    for graph in (one, both):
        with pytest.raises(GraphActorDiedError):
            graph.execute(1).get(30)
    assert other.execute(1).get(30) == 1
    for graph in (one, both, other):
        graph.teardown()


def test_survivors_leave_a_broken_graph_and_compile_again(host) -> None:
    dies, lives = host.actor(Worker()), host.actor(Worker(1))
    with InputNode() as inp:
        output = lives.join.bind(lives.echo.bind(inp), dies.echo.bind(inp))
    graph = output.experimental_compile()
    host.kill(dies.actor_id)
    with pytest.raises(GraphActorDiedError):
        graph.execute(1).get(30)
    assert ask(lives) == 5
    with one_method(lives, "add").experimental_compile() as again:
        assert again.execute(1).get(30) == 2
    graph.teardown()
    assert lives.resources == {}
