from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest
from hypothesis import given, settings

from compiled_dag.channel.layout import ChannelSpec
from compiled_dag.channel.transport import Transport
from compiled_dag.lifetimes import ends_of_views
from compiled_dag.passes.prefetch import prefetch_reads
from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Read, Release, uses
from compiled_dag.table import parse_step
from tests.graphs import paper, program_of
from tests.recipes import draw, recipes

VIEWS = Transport(mechanism="cuda_ipc", views=True)


def channels(count):
    return [
        ChannelSpec(index=n, writer=1, readers=(2,), depth=2, label=f"f#{n}", transport=VIEWS)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("R0 v0 | C1 v1=f(v0) | D v0,v1", {3: (0,)}),
        ("R0 v0 | C1 v1=f(v0) | W1 v1 | D v0,v1 | C2 v2=g() | D v2", {4: (0,)}),
        ("R0 v0 | C1 v1=f(v0) | D v0 | C2 v2=g(v1) | D v1 | W1 v2 | D v2", {7: (0,)}),
        ("R0 v0 | R1 v1 | C1 v2=f(v1) | D v1,v2 | C2 v3=g(v0) | D v0,v3", {4: (1,), 6: (0,)}),
        ("R0 v0 | R1 v1 | C1 v2,v3,=f(v0,v1) | D v0,v1,v2 | D v3", {5: (0, 1)}),
        ("R0 v0 | S0 v0 | C1 v1=f() | J0 v2 | D v0,v1 | W1 v2 | D v2", {7: (0,)}),
        ("R0 v0 | C1 v1=f()", {1: (0,)}),
    ],
)
def test_a_view_ends_with_the_last_that_may_be_it(text, ends) -> None:
    steps = [parse_step(part.strip()) for part in text.split("|")]
    assert ends_of_views(steps, channels(2)) == ends


def test_what_is_copied_out_of_a_ring_ends_nowhere() -> None:
    copied = [
        dataclasses.replace(one, transport=Transport(mechanism="cuda_ipc")) for one in channels(1)
    ]
    assert ends_of_views([Read(0, 0), Release((0,))], copied) == {}


@given(recipes(collectives=True))
@settings(max_examples=100, deadline=None)
def test_nothing_that_may_be_a_view_is_there_any_more_where_it_ends(recipe) -> None:
    program = program_of(draw(recipe, paper(recipe.num_actors)))
    specs = tuple(dataclasses.replace(spec, transport=VIEWS) for spec in program.channels)
    program = prefetch_reads(dataclasses.replace(program, channels=specs))
    for steps in program.steps[1:]:
        _check(steps, ends_of_views(steps, specs))


def _check(steps, ends) -> None:
    """Follow what every slot may hold, as if methods returned all that they were given."""
    held: dict[int, set[int]] = defaultdict(set)
    started: dict[int, set[int]] = {}
    over: set[int] = set()
    for number, step in enumerate(steps, 1):
        what = set().union(*(held[slot] for slot in uses(step)))
        assert not what & over
        match step:
            case Read(channel, slot):
                held[slot] = {channel}
            case Compute(results=slots):
                held.update(dict.fromkeys(slots, what))
            case CollectiveStart(operation=operation):
                started[operation] = what
            case CollectiveWait(operation, slots):
                held.update(dict.fromkeys(slots, started.pop(operation)))
            case Release(slots):
                held.update(dict.fromkeys(slots, frozenset()))
            case _:
                pass
        over.update(ends.get(number, ()))
        assert not over & set().union(*held.values())
    assert over == {step.channel for step in steps if isinstance(step, Read)}
