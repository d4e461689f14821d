from __future__ import annotations

import pytest
from hypothesis import given, settings

from collective import allgather, allreduce, broadcast
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.passes.channels import plan_channels
from compiled_dag.passes.order import total_order
from compiled_dag.passes.overlap import overlap
from compiled_dag.passes.steps import build_steps
from compiled_dag.passes.transports import resolve_transports
from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Read, Release, Write
from compiled_dag.simulate import simulate
from compiled_dag.table import step_text
from tests.graphs import paper, program_of
from tests.recipes import Machine, draw, recipes


def steps_of(output, participant=1):
    return [step_text(step) for step in program_of(output).steps[participant]]


def two_layers(reduce):
    """A gradient that is reduced while the next one is computed."""
    workers = paper(2)
    with InputNode() as inp:
        upper = reduce([worker.backward.bind(inp) for worker in workers])
        lower = reduce([worker.backward.bind(inp) for worker in workers])
        pairs = zip(workers, upper, lower, strict=True)
        return MultiOutputNode([worker.join.bind(one, two) for worker, one, two in pairs])


@pytest.mark.parametrize("reduce", [allreduce.bind, broadcast.bind])
def test_the_next_gradient_is_computed_while_the_last_one_is_reduced(reduce) -> None:
    assert steps_of(two_layers(reduce)) == [
        "R0 v0",
        "C1 v1=backward(v0)",
        "S0 v1",
        "C3 v3=backward(v0)",
        "D v0",
        "J0 v2",
        "D v1",
        "S1 v3",
        "J1 v4",
        "D v3",
        "C9 v5=join(v2, v4)",
        "W1 v5",
        "D v2,v4,v5",
    ]


def test_what_is_sent_from_where_it_is_may_not_change_meanwhile() -> None:
    steps = steps_of(two_layers(allgather.bind))
    assert steps.index("J0 v2") == steps.index("S0 v1") + 1


def test_a_result_is_awaited_before_it_is_used_or_another_value_comes() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        reduced = allreduce.bind([first.echo.bind(inp), second.echo.bind(inp)])
        other = second.echo.bind(inp)
        ours = [first.add.bind(reduced[0]), first.join.bind(other, reduced[0])]
        output = MultiOutputNode([*ours, reduced[1]])
    steps = steps_of(output)
    assert [step[0] for step in steps] == list("RCDSJDCWDRCWD")


def before_and_after(output):
    graph = capture(output).graph
    order, transports = total_order(graph), resolve_transports(graph)
    program = build_steps(graph, order, plan_channels(graph, order, transports, 2), transports)
    return graph, program, overlap(graph, program)


COMMUNICATION = Read | Write | CollectiveStart | CollectiveWait


@settings(max_examples=100)
@given(recipes(collectives=True, max_steps=14))
def test_communication_and_methods_stay_in_their_orders(recipe) -> None:
    graph, before, after = before_and_after(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    simulate(after)
    for old, new in zip(before.steps, after.steps, strict=True):
        assert sorted(map(str, old)) == sorted(map(str, new))
        for kind in (COMMUNICATION, Compute):
            assert [s for s in old if isinstance(s, kind)] == [
                s for s in new if isinstance(s, kind)
            ]
    for new in after.steps[1:]:
        check_slots(new)
    waits = [step for steps in after.steps for step in steps if isinstance(step, CollectiveWait)]
    assert len(waits) == sum(len(operation.members) for operation in graph.operations)


def check_slots(steps) -> None:
    """No slot is used before it is filled, after it is forgotten, or forgotten while it is sent."""
    filled: set[int] = set()
    under_way: dict[int, tuple[int, ...]] = {}
    for step in steps:
        match step:
            case Read(slot=slot):
                filled.add(slot)
            case Write(slot=slot):
                assert slot in filled
            case Compute():
                assert filled.issuperset(step.arguments.values())
                filled.update(step.results)
            case CollectiveStart():
                assert filled.issuperset(step.slots)
                under_way[step.operation] = step.slots
            case CollectiveWait():
                assert filled.issuperset(under_way.pop(step.operation))
                filled.update(step.slots)
            case Release():
                filled.difference_update(step.slots)
    assert not under_way
