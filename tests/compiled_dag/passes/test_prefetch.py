from __future__ import annotations

import dataclasses

from hypothesis import given, settings

from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.channel.transport import Transport
from compiled_dag.ir import DRIVER
from compiled_dag.passes.channels import plan_channels
from compiled_dag.passes.order import total_order
from compiled_dag.passes.overlap import overlap
from compiled_dag.passes.prefetch import prefetch_reads
from compiled_dag.passes.steps import build_steps
from compiled_dag.passes.transports import resolve_transports
from compiled_dag.plan import remote_readers
from compiled_dag.program import Compute, Read, Release, uses
from compiled_dag.simulate import simulate
from compiled_dag.table import step_text
from tests.graphs import paper, program_of
from tests.recipes import draw, recipes

RING = Transport(mechanism="cuda_ipc")


def on_gpus(program, *channels):
    """Return a program whose channels (all, if none is named) have device rings."""
    specs = tuple(
        dataclasses.replace(spec, transport=RING)
        if spec.index in channels or not channels
        else spec
        for spec in program.channels
    )
    return dataclasses.replace(program, channels=specs)


def texts(program, participant):
    return [step_text(step) for step in program.steps[participant]]


def two_reads():
    first, second = paper(2)
    with InputNode() as inp:
        early, late = first.add.bind(inp), first.echo.bind(inp)
        local = second.add.bind(second.echo.bind(early))
        return program_of(MultiOutputNode([second.join.bind(local, late)]))


def test_a_read_goes_in_front_of_the_one_method_before_it() -> None:
    program = two_reads()
    before = texts(program, 2)
    after = texts(prefetch_reads(on_gpus(program, 1, 2)), 2)
    late = next(text for text in before if text.startswith("R2"))
    assert before.index(late) - 2 == after.index(late)
    assert after[after.index(late) + 1].startswith("C")
    assert [text for text in before if text != late] == [text for text in after if text != late]


def test_reads_from_host_memory_stay_where_they_are() -> None:
    program = two_reads()
    assert prefetch_reads(program) == program


@given(recipes(collectives=True))
@settings(max_examples=30)
def test_communication_stays_in_its_order_and_nobody_waits_for_ever(recipe) -> None:
    program = on_gpus(program_of(draw(recipe, paper(recipe.num_actors))))
    moved = prefetch_reads(program)
    simulate(moved)
    for before, after in zip(program.steps, moved.steps, strict=True):
        assert sorted(map(str, before)) == sorted(map(str, after))
        assert _communication(before) == _communication(after)
        assert not after or isinstance(after[0], type(before[0]))
        there = set()
        for step in after:
            assert not isinstance(step, Compute) or set(uses(step)) <= there
            there |= set(_filled(step))


@given(recipes(collectives=True))
@settings(max_examples=30)
def test_so_it_does_where_writers_and_readers_have_to_meet(recipe) -> None:
    program = meeting(capture(draw(recipe, paper(recipe.num_actors))).graph)
    moved = prefetch_reads(program)
    simulate(moved)
    for before, after in zip(program.steps, moved.steps, strict=True):
        assert _communication(before) == _communication(after)


def meeting(graph):
    """Return a graph's program with NCCL between all actors."""
    order, found, readers = total_order(graph), resolve_transports(graph), remote_readers(graph)
    by_nccl = {
        value: Transport(mechanism="nccl")
        for value in found.of_value
        if DRIVER not in {graph.nodes[value].actor, *readers[value]}
    }
    found = dataclasses.replace(found, of_value=found.of_value | by_nccl)
    channels = plan_channels(graph, order, found, 4)
    return overlap(graph, build_steps(graph, order, channels, found))


def _communication(steps):
    return [step for step in steps if not isinstance(step, (Compute, Release))]


def _filled(step):
    match step:
        case Read(slots=slots):
            return slots
        case Compute(results=results):
            return results
        case _:
            return getattr(step, "slots", ()) if not isinstance(step, Release) else ()
