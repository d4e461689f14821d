from __future__ import annotations

from collections import Counter

from hypothesis import given, settings

from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Read, Release, Write
from compiled_dag.table import step_text
from compiled_dag.tree import Val, leaves
from tests.graphs import data_parallel, idle_start, multi_return, nested, paper, program_of
from tests.recipes import Machine, draw, recipes


def texts(program, participant):
    return [step_text(step) for step in program.steps[participant]]


def test_a_value_is_written_as_soon_as_it_is_made_and_dropped_after_its_last_use() -> None:
    (first, second) = paper(2)
    with InputNode() as inp:
        value = first.echo.bind(inp)
        output = MultiOutputNode([second.add.bind(value), first.add.bind(value)])
    assert texts(program_of(output), 1) == [
        "R0 v0",
        "C1 v1=echo(v0)",
        "W1 v1",
        "D v0",
        "C3 v2=add(v1)",
        "W3 v2",
        "D v1,v2",
    ]


def test_the_driver_writes_all_inputs_and_the_trigger_before_it_reads() -> None:
    assert texts(program_of(idle_start(paper(2))), 0) == ["W0 v0", "W3 v1", "R2 v2"]


def test_a_triggered_actor_reads_the_trigger_first() -> None:
    assert texts(program_of(idle_start(paper(2))), 2)[:2] == ["R3 v0", "D v0"]


def test_a_collective_is_a_start_and_a_wait_on_every_rank() -> None:
    program = program_of(data_parallel(paper(2)))
    for participant in (1, 2):
        assert texts(program, participant)[3:5] == ["S0 v1", "J0 v2"]
    (operation,) = program.operations
    assert (operation.members, operation.text) == ((1, 2), "allreduce(AVG)")


def test_several_returns_fill_a_slot_each_and_travel_one_by_one() -> None:
    steps = texts(program_of(multi_return(paper(2))), 1)
    assert "C1 v1,v2,=divide(v0)" in steps
    assert [step for step in steps if step.startswith("W")] == ["W1 v1", "W2 v2", "W4 v4"]


def test_a_single_return_in_a_tuple_of_one_is_not_unpacked() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = worker.echo.options(num_returns=1).bind(inp)
    (compute,) = [s for s in program_of(output).steps[1] if isinstance(s, Compute)]
    assert not compute.unpack


def test_a_value_read_for_two_calls_is_read_once() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = MultiOutputNode([worker.echo.bind(inp), worker.add.bind(inp)])
    assert [step for step in texts(program_of(output), 1) if step.startswith("R")] == ["R0 v0"]


def test_arguments_refer_to_slots_and_constants() -> None:
    (compute,) = [
        step
        for step in program_of(nested(paper(2))).steps[2]
        if isinstance(step, Compute) and step.method == "pack"
    ]
    assert str(compute.arguments) == "[v2, {c1: (v1, c2)}], c3, flag=c4, node=v2"


def test_entries_and_outputs_are_slots_of_the_driver() -> None:
    program = program_of(nested(paper(2)))
    assert [(entry.key, entry.slot) for entry in program.entries] == [(0, 0), ("scale", 1)]
    assert [str(tree) for tree in program.outputs] == ["v2", "v3", "v1", "c0"]


def test_an_output_given_twice_is_read_once() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        value = worker.echo.bind(inp)
        output = MultiOutputNode([value, value])
    assert texts(program_of(output), 0) == ["W0 v0", "R1 v1"]


def walk(program, participant):
    """Run a participant's steps over slots that only know whether they are filled."""
    filled = {entry.slot for entry in program.entries} if participant == 0 else set()
    for step in program.steps[participant]:
        match step:
            case Read(_, slot):
                yield step, filled, ()
                filled.add(slot)
            case Write(_, slot):
                yield step, filled, (slot,)
            case CollectiveStart(_, slots):
                yield step, filled, slots
            case CollectiveWait(_, slots):
                yield step, filled, ()
                filled |= set(slots)
            case Compute():
                yield step, filled, step.arguments.values()
                filled |= set(step.results)
            case Release(slots):
                yield step, filled, ()
                filled -= set(slots)
    yield None, filled, ()


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_no_step_uses_an_empty_slot_and_actors_end_with_none_filled(recipe) -> None:
    program = program_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    trigger = {spec.index for spec in program.channels if spec.label == "start"}
    for participant in range(len(program.participants)):
        left = set()
        for step, filled, used in walk(program, participant):
            left = set(filled)
            assert max(filled, default=0) < program.slots[participant]
            if not (isinstance(step, Write) and step.channel in trigger):
                assert set(used) <= filled
        assert participant == 0 or left == set()


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_every_channel_is_written_once_and_read_once_by_each_reader(recipe) -> None:
    program = program_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    written, read = Counter(), Counter()
    for participant, steps in enumerate(program.steps):
        for step in steps:
            if isinstance(step, Write):
                written[step.channel, participant] += 1
            elif isinstance(step, Read):
                read[step.channel, participant] += 1
    assert written == Counter((spec.index, spec.writer) for spec in program.channels)
    assert read == Counter((spec.index, r) for spec in program.channels for r in spec.readers)


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_every_actors_program_begins_with_a_read(recipe) -> None:
    program = program_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    assert all(isinstance(steps[0], Read) for steps in program.steps[1:])


@settings(max_examples=60)
@given(recipes())
def test_outputs_come_from_slots_the_driver_has(recipe) -> None:
    program = program_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    *_, (_, filled, _) = walk(program, 0)
    values = {leaf.id for tree in program.outputs for leaf in leaves(tree) if isinstance(leaf, Val)}
    assert values <= filled
