from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings

from collective import allreduce
from compiled_dag import DeadlockError, InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.ir import Call, Collective, Input, Output
from compiled_dag.passes.order import total_order
from tests.graphs import paper, pipeline
from tests.recipes import Machine, draw, recipes


def graph_of(output):
    return capture(output).graph


def names(graph, order):
    return [graph.nodes[node].label for node in order]


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_the_order_extends_dependencies_and_every_actors_bind_order(recipe) -> None:
    graph = graph_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    order = total_order(graph)
    place = {node: number for number, node in enumerate(order)}
    work = [node for node in graph.nodes if not isinstance(node.op, Input | Output)]
    assert sorted(order) == sorted(node.id for node in work)
    assert all(place[use] < place[node.id] for node in work for use in node.uses() if use in place)
    for actor in graph.actors:
        bound = [n for n in work if n.actor == actor and isinstance(n.op, Call | Collective)]
        in_order = sorted(bound, key=lambda node: node.order)
        assert all(place[a.id] < place[b.id] for a, b in pairwise(in_order))


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_the_ranks_of_a_collective_are_adjacent(recipe) -> None:
    graph = graph_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    order = total_order(graph)
    for operation in graph.operations:
        start = order.index(operation.nodes[0])
        assert order[start : start + len(operation.nodes)] == operation.nodes


def test_a_ready_collective_comes_before_ready_calls() -> None:
    first, second, third = paper(3)
    with InputNode() as inp:
        other = third.add.bind(third.echo.bind(inp))
        grads = [first.grad.bind(inp), second.grad.bind(inp)]
        output = MultiOutputNode([other, *allreduce.bind(grads)])
    graph = graph_of(output)
    assert names(graph, total_order(graph)) == [
        "Worker.echo",
        "Worker.grad",
        "Worker.grad",
        "allreduce(SUM), rank 0",
        "allreduce(SUM), rank 1",
        "Worker.add",
    ]


def test_a_collective_waits_for_what_its_actors_bound_before_it() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        grads = [first.grad.bind(inp), second.grad.bind(inp)]
        other = first.echo.bind(inp)
        output = MultiOutputNode([other, *allreduce.bind(grads)])
    graph = graph_of(output)
    assert names(graph, total_order(graph))[:3] == ["Worker.grad", "Worker.grad", "Worker.echo"]


def test_ties_go_by_position_on_the_actor_then_by_node_number() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        late = [second.echo.bind(inp) for _ in range(2)]
        early = [first.echo.bind(inp) for _ in range(2)]
        output = MultiOutputNode([*early, *late])
    graph = graph_of(output)
    order = total_order(graph)
    assert [(graph.nodes[node].actor, node) for node in order] == [(2, 1), (1, 3), (2, 2), (1, 4)]


def test_a_pipeline_keeps_its_interleaving_on_both_stages() -> None:
    graph = graph_of(pipeline(paper(2), batches=2))
    order = total_order(graph)
    by_stage = {
        actor: [graph.nodes[node].label[7:] for node in order if graph.nodes[node].actor == actor]
        for actor in (1, 2)
    }
    assert by_stage == {
        1: ["forward", "forward", "backward", "backward"],
        2: ["forward", "backward", "forward", "backward"],
    }


def test_the_order_is_a_function_of_the_graph_alone() -> None:
    graph = graph_of(pipeline(paper(2)))
    assert total_order(graph) == total_order(graph)


def test_an_argument_added_after_the_bind_may_contradict_the_bind_order() -> None:
    (worker,) = paper(1)
    arguments = []
    with InputNode() as inp:
        early = worker.pack.bind(inp, arguments)
        arguments.append(worker.echo.bind(inp))
    with pytest.raises(DeadlockError) as raised:
        total_order(graph_of(early))
    first, *cycle = str(raised.value).splitlines()
    assert "an actor runs its nodes in the order they were bound. Bind in another order" in first
    place = r"\(node \d, bound at test_order\.py:\d+\)"
    early_one, late_one = rf"Worker\.pack {place}", rf"Worker\.echo {place}"
    assert len(cycle) == 2
    assert re.fullmatch(
        rf"  Worker\(1\): {early_one} waits for {late_one} on Worker\(1\), an argument of it",
        cycle[0],
    )
    assert re.fullmatch(
        rf"  Worker\(1\): {late_one} waits for {early_one} on Worker\(1\), bound before it",
        cycle[1],
    )


def test_two_collectives_in_opposite_order_wait_for_each_other() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        grads = [first.grad.bind(inp), second.grad.bind(inp)]
        output = MultiOutputNode([*allreduce.bind(grads), *allreduce.bind(grads)])
    graph = graph_of(output)
    late = max(node.order for node in graph.nodes) + 1
    swapped = graph.operations[0].nodes[1]  # the second actor binds this one last
    nodes = tuple(
        dataclasses.replace(node, order=late) if node.id == swapped else node
        for node in graph.nodes
    )
    with pytest.raises(DeadlockError, match="a collective starts when all its ranks do") as raised:
        total_order(dataclasses.replace(graph, nodes=nodes))
    _, *cycle = str(raised.value).splitlines()
    assert sorted(re.sub(r" \(node (\d)[^)]*\)", r"#\1", line) for line in cycle) == [
        f"  {actor}: {rank}#{later} waits for {rank}#{before} on {actor}, bound before it"
        for actor, rank, later, before in (
            ("Worker(1)", "allreduce(SUM), rank 0", 4, 3),
            ("Worker(2)", "allreduce(SUM), rank 1", 5, 6),
        )
    ]


def test_who_only_waits_behind_a_cycle_is_not_blamed() -> None:
    first, second = paper(2)
    arguments = []
    with InputNode() as inp:
        early = first.pack.bind(inp, arguments)
        arguments.append(first.echo.bind(inp))
        output = second.join.bind(second.add.bind(early), first.zeros.bind(inp))
    with pytest.raises(DeadlockError) as raised:
        total_order(graph_of(output))
    assert "Worker.pack" in str(raised.value)
    assert not any(name in str(raised.value) for name in ("Worker(2)", "zeros", "join"))
