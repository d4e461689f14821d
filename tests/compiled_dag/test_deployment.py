"""How graphs come up, several on the same actors too; `test_deployment_end`: how they end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from compiled_dag import (
    ActorDiedError,
    CompiledDAGRef,
    DAGContext,
    GraphError,
    InputNode,
    MultiOutputNode,
)
from compiled_dag.deployment import Deployment
from tests.gates import ask, one_method, soon
from tests.graphs import Worker, chain, diamond

# --- several graphs -------------------------------------------------------------------------------


def test_the_same_graph_compiles_again_and_again(host) -> None:
    output = diamond([host.actor(Worker(number)) for number in range(4)])
    for _ in range(3):
        with output.experimental_compile() as graph:
            assert graph.execute(1).get(30) == (2, 3)


def test_two_graphs_live_on_the_same_actors(host) -> None:
    actors = [host.actor(Worker(number)) for number in (1, 10, 100)]
    there, back = chain(actors), chain(actors[::-1])
    with there.experimental_compile() as one, back.experimental_compile() as other:
        refs = [(one.execute(number), other.execute(-number)) for number in range(10)]
        assert [(left.get(30), right.get(30)) for left, right in refs] == [
            (number + 111, -number + 111) for number in range(10)
        ]
        one.teardown()
        assert other.execute(5).get(30) == 116


def test_ordinary_calls_are_served_between_executions(host) -> None:
    actor = host.actor(Worker(1))
    with one_method(actor).experimental_compile() as graph:
        for number in range(50):
            pending = actor.add.remote(number)
            assert graph.execute(number).get(30) == number
            assert pending.result(soon()) == number + 1


def test_a_method_never_runs_beside_another_of_its_actor(host) -> None:
    class Jealous:
        def __init__(self) -> None:
            self.alone = threading.Lock()

        def work(self, value):
            assert self.alone.acquire(blocking=False), "two methods at once"
            self.alone.release()
            return value

    actor = host.actor(Jealous())
    with InputNode() as inp:
        first, second = actor.work.bind(inp), actor.work.bind(inp)
        output = MultiOutputNode([first, second])
    with output.experimental_compile() as one, output.experimental_compile() as other:
        for number in range(20):
            refs = [*one.execute(number), *other.execute(number)]
            pending = actor.work.remote(number)
            assert [ref.get(30) for ref in refs] == [number] * 4
            assert pending.result(soon()) == number


# --- constants that cannot be ---------------------------------------------------------------------


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


@pytest.mark.parametrize(
    ("hide", "kind"),
    [
        (lambda node: {node}, "a set"),
        (Box, "a Box"),
        (lambda node: [Box(node)], "a Box"),
        (lambda node: lambda: node, "a function"),
        (lambda node: {node: 1}, "a key of a dict"),
    ],
    ids=["set", "object", "object in a list", "closure", "key"],
)
def test_a_node_inside_another_object_is_refused_by_argument_and_type(host, hide, kind) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.pack.bind(inp, hidden=hide(inp))
    with pytest.raises(GraphError) as raised:
        output.experimental_compile()
    text = str(raised.value)
    assert text.startswith("argument 'hidden' of Worker.pack, bound at test_deployment.py:")
    assert f"has {inp!r} inside {kind}. In a compiled graph" in text
    assert "take the object apart" in text


def test_a_hidden_node_that_nothing_else_reads_is_told_as_hidden(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.join.bind(inp, Box(worker.echo.bind(inp)))
    with pytest.raises(GraphError, match="has <.*Worker.echo bound at .*> inside a Box"):
        output.experimental_compile()


def test_a_constant_that_cannot_be_sent_any_more_is_refused_at_compile(host) -> None:
    worker = host.actor(Worker())
    constant: list[Any] = [1]
    with InputNode() as inp:
        output = worker.pack.bind(inp, constant)
    constant.append(threading.Lock())
    with pytest.raises(TypeError, match=r"^argument 1 of Worker\.pack, bound .*value\[1\] of type"):
        output.experimental_compile()


def test_a_result_is_no_input(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.echo.bind(inp)
    with output.experimental_compile() as graph:
        ref = graph.execute(1)
        assert isinstance(ref, CompiledDAGRef)
        with pytest.raises(TypeError, match="get its value first"):
            graph.execute([ref])
        assert ref.get(30) == 1


# --- compiles that fail ---------------------------------------------------------------------------


def test_a_graph_over_a_dead_actor_is_not_compiled(host) -> None:
    dead, alive = host.actor(Worker()), host.actor(Worker())
    host.kill(dead.actor_id)
    with pytest.raises(ActorDiedError, match=r"actor Worker\(1\) was killed"):
        chain([alive, dead]).experimental_compile()
    assert ask(alive) == 5
    assert alive.resources == {}


def test_an_actor_that_dies_while_the_graph_comes_up_ends_the_compile(host, monkeypatch) -> None:
    dies, lives = host.actor(Worker()), host.actor(Worker())
    check = Deployment._check_alive

    def die_first(deployment) -> None:
        host.kill(dies.actor_id)
        check(deployment)

    monkeypatch.setattr(Deployment, "_check_alive", die_first)
    with pytest.raises(ActorDiedError, match=r"actor Worker\(1\) was killed"):
        chain([lives, dies]).experimental_compile()
    assert ask(lives) == 5
    assert lives.resources == {}


def test_a_busy_actor_ends_the_compile_after_its_time_and_is_named(host, gate, monkeypatch) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "compile_timeout", 0)
    close = Deployment.close

    def open_and_close(deployment, timeout_s):
        gate.opened.set()  # or it would wait for the actor to let go
        return close(deployment, timeout_s)

    monkeypatch.setattr(Deployment, "close", open_and_close)
    busy = host.actor(gate)
    call = busy.hold.remote(1)
    gate.wait_entered()
    with pytest.raises(GraphError, match=r"actor Gate\(1\) did not load .* compile_timeout=0 s"):
        one_method(busy).experimental_compile()
    assert call.result(soon()) == 1
    assert ask(busy) == 5
    assert busy.resources == {}


def test_a_wrong_graph_contacts_nobody(host, monkeypatch) -> None:
    actor = host.actor(Worker())
    monkeypatch.setattr(host, "submit", None)
    monkeypatch.setattr(host, "line", None)
    with pytest.raises(GraphError, match="no input"):
        actor.echo.bind(1).experimental_compile()
    with pytest.raises(GraphError, match="_max_inflight_executions=0"):
        one_method(actor).experimental_compile(_max_inflight_executions=0)


class Spoiled:
    """It can be sent and not be received."""

    def __reduce__(self):
        return _spoil, ()


def _spoil() -> None:
    raise RuntimeError("spoiled on the way")


def test_a_constant_that_cannot_be_received_ends_the_compile_and_leaves_nothing(host) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    with InputNode() as inp:
        output = second.join.bind(first.echo.bind(inp), Spoiled())
    with pytest.raises(RuntimeError, match="spoiled on the way"):
        output.experimental_compile()
    assert [ask(first), ask(second)] == [5, 5]
    assert first.resources == second.resources == {}


def test_a_method_that_is_not_there_ends_the_compile_and_leaves_nothing(host, monkeypatch) -> None:
    first, second = host.actor(Worker()), host.actor(Worker())
    output = chain([first, second])
    monkeypatch.setattr(second, "instance", object())
    with pytest.raises(AttributeError, match="has no attribute 'add'"):
        output.experimental_compile()
    assert first.resources == second.resources == {}
