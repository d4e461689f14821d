"""Values of one call that a process group carries to the same readers: one message, one meeting."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings

from collective import allreduce
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.channel.transport import Transport
from compiled_dag.ir import DRIVER, Element
from compiled_dag.passes.channels import plan_channels
from compiled_dag.passes.order import total_order
from compiled_dag.passes.overlap import overlap
from compiled_dag.passes.prefetch import prefetch_reads
from compiled_dag.passes.steps import build_steps
from compiled_dag.passes.transports import resolve_transports
from compiled_dag.plan import remote_readers
from compiled_dag.program import Read, Write
from compiled_dag.schedule import Schedule
from compiled_dag.simulate import simulate
from compiled_dag.table import parse, render, step_text
from tests.graphs import paper
from tests.recipes import Machine, draw, recipes

NCCL = Transport(mechanism="nccl", reason="made to")


def compiled(output, transport=NCCL, **others):
    """Return a graph and its program, with a transport for what actors send each other.

    Args:
        output: What the graph ends in.
        transport: How values travel.
        others: How those of methods travel that are named.
    """
    graph = capture(output).graph
    order, found, readers = total_order(graph), resolve_transports(graph), remote_readers(graph)
    ways = {
        value: others.get(graph.nodes[value].label.replace(".", "_"), transport)
        for value in found.of_value
        if DRIVER not in {graph.nodes[value].actor, *readers[value]}
    }
    found = dataclasses.replace(found, of_value=found.of_value | ways)
    channels = plan_channels(graph, order, found, 4)
    return graph, overlap(graph, build_steps(graph, order, channels, found))


def split(first, *readers):
    """Draw a call with two values, both of which every reader needs, one later than the other."""
    with InputNode() as inp:
        tens, ones = first.divide.options(num_returns=2).bind(inp)
        return MultiOutputNode(
            [reader.join.bind(reader.add.bind(tens), ones) for reader in readers]
        )


def labels(program):
    return [spec.label for spec in program.channels]


GOLDEN = """
# R read, W write, C compute, S start and J join a collective, D drop; v slots, c constants
program inflight=4 list
participant 0 driver
participant 1 Worker(1)
participant 2 Worker(2)
channel 0 0>1 0 input
channel 1 1>2 2,3 Worker.divide[0]#2, Worker.divide[1]#3
channel 2 2>0 5 Worker.join#5
transport 1 nccl default | made to
slots 2,4,4
entry - v0
output v1
step | driver | Worker(1)            | Worker(2)
   0 | W0 v0  |                      |
   1 |        | R0 v0                |
   2 |        | C1 v1,v2,=divide(v0) |
   3 |        | D v0                 |
   4 |        | W1 v1,v2             | R1 v0,v1
   5 |        | D v1                 | C4 v2=add(v0)
   6 |        | D v3,v2              | D v0
   7 |        |                      | C5 v3=join(v2, v1)
   8 |        |                      | W2 v3
   9 | R2 v1  |                      | D v2,v1,v3
"""

SCHEDULE = """
schedule inflight=4 of Worker(1), Worker(2)
meetings on channels 1
actor     | operation | node | channel | peers     | name
driver    | WRITE     | 0    | 0       | Worker(1) | input
driver    | READ      | 6    | 2       | Worker(2) | MultiOutputNode
Worker(1) | READ      | 1    | 0       | driver    | Worker.divide
Worker(1) | COMPUTE   | 1    |         |           | Worker.divide
Worker(1) | WRITE     | 2    | 1       | Worker(2) | Worker.divide[0]
Worker(2) | READ      | 4    | 1       | Worker(1) | Worker.add
Worker(2) | COMPUTE   | 4    |         |           | Worker.add
Worker(2) | COMPUTE   | 5    |         |           | Worker.join
Worker(2) | WRITE     | 5    | 2       | driver    | Worker.join
"""


def test_the_program_and_the_schedule_are_the_golden_ones() -> None:
    graph, program = compiled(split(*paper(2)))
    assert render(program) == GOLDEN.strip()
    assert parse(GOLDEN) == program
    schedule = Schedule.of(program, graph)
    assert str(schedule) == SCHEDULE.strip()
    Schedule.parse(SCHEDULE).verify()


def test_several_readers_of_both_values_share_the_message() -> None:
    _, program = compiled(split(*paper(3)))
    (spec,) = [spec for spec in program.channels if spec.transport.has_group]
    assert (spec.readers, spec.nodes) == ((2, 3), (2, 3))
    assert [step.slots for step in program.steps[3] if isinstance(step, Read)] == [(0, 1)]


def test_values_for_other_readers_or_by_another_way_travel_apart() -> None:
    first, second, third = paper(3)
    with InputNode() as inp:
        parts = first.divide.options(num_returns=3).bind(inp)
        output = [second.join.bind(parts[0], parts[1]), third.join.bind(parts[1], parts[2])]
    _, program = compiled(MultiOutputNode(output))
    divided = [label.split("#")[0] for label in labels(program) if "divide" in label]
    assert divided == [f"Worker.divide[{n}]" for n in range(3)]

    apart = {"Worker_divide[0]": Transport(mechanism="cuda_ipc")}
    _, program = compiled(split(*paper(2)), **apart)
    assert labels(program)[1:3] == ["Worker.divide[0]#2", "Worker.divide[1]#3"]


def test_values_of_other_ways_and_promised_ones_travel_apart_as_always() -> None:
    ways = [
        Transport(),
        Transport(mechanism="cuda_ipc"),
        Transport(mechanism="communicator"),
        dataclasses.replace(NCCL, static_shape=True),
        dataclasses.replace(NCCL, direct_return=True),
    ]
    for way in ways:
        _, program = compiled(split(*paper(2)), way)
        assert labels(program)[1:3] == ["Worker.divide[0]#2", "Worker.divide[1]#3"]
    _, program = compiled(split(*paper(2)), dataclasses.replace(NCCL, mechanism="gloo"))
    assert len(program.channels) == 3


def test_results_of_a_collective_with_several_tensors_travel_together() -> None:
    first, second, third = paper(3)
    with InputNode() as inp:
        grads = [actor.divide.options(num_returns=2).bind(inp) for actor in (first, second)]
        here, there = allreduce.bind([list(one) for one in zip(*grads, strict=True)])
        output = MultiOutputNode([third.join.bind(*here), second.join.bind(*there)])
    _, program = compiled(output)
    writes = [step for step in program.steps[1] if isinstance(step, Write)]
    assert [len(step.slots) for step in writes] == [2]
    simulate(program)


def test_a_read_of_several_values_is_prefetched_as_one() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        early = first.add.bind(inp)
        tens, ones = first.divide.options(num_returns=2).bind(inp)
        local = second.add.bind(early)
        output = second.join.bind(local, [tens, ones])
    _, program = compiled(output)
    before = [step_text(step) for step in program.steps[2]]
    after = [step_text(step) for step in prefetch_reads(program).steps[2]]
    (read,) = [text for text in before if "," in text and text.startswith("R")]
    assert after.index(read) < before.index(read)
    assert after[after.index(read) + 1].startswith("C")


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_every_value_is_written_once_and_read_once_and_nobody_waits_for_ever(recipe) -> None:
    graph, program = compiled(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    simulate(program)
    assert parse(render(program)) == program
    carried = [node for spec in program.channels for node in spec.nodes]
    assert len(set(carried)) == len(carried)
    for spec in program.channels:
        for node in spec.beside:
            one, other = graph.nodes[spec.node].op, graph.nodes[node].op
            assert isinstance(one, Element)
            assert isinstance(other, Element)
            assert one.source == other.source
    for steps in program.steps[1:]:
        filled = [slot for step in steps if isinstance(step, Read) for slot in step.slots]
        assert len(set(filled)) == len(filled)
