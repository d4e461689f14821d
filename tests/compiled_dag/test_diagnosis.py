"""Who waits for whom, from what is seen; no process, no memory."""

from __future__ import annotations

import pytest

from compiled_dag import InputNode
from compiled_dag.diagnosis import Seen, Snapshot, diagnose
from compiled_dag.hang import HangReport
from compiled_dag.host import Activity, ActorId, Wait
from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Read, Write
from compiled_dag.table import parse
from tests.communicators import PaperCommunicator
from tests.graphs import chain, data_parallel, fan_out, paper, program_of

CHAIN = program_of(chain(paper(3)))
"""Channels: 0 the input, 1 and 2 between the actors, 3 the output."""
RANKS = program_of(data_parallel(paper(2)))


class _Names(dict[int, str]):
    def __missing__(self, node: int) -> str:
        return f"node {node}"


def step_of(program, participant: int, kind: type) -> int:
    """Return the number of a participant's first step of a kind."""
    steps = program.steps[participant]
    return next(number for number, step in enumerate(steps, 1) if isinstance(step, kind))


def seen(number: int, begun: int = 0, execution: int = 0, step: int = 0, **more) -> Seen:
    return Seen(
        actor_id=ActorId(number), begun=begun, execution=execution, step=step, **more
    )  # fmt: skip


def computing(number: int, execution: int = 0, program=CHAIN, **more) -> Seen:
    step = step_of(program, number, Compute)
    return seen(number, execution + 1, execution, step, for_s=2.5, **more)


def reading(number: int, execution: int = 0, program=CHAIN) -> Seen:
    return seen(number, execution, execution, step_of(program, number, Read), for_s=2.0)


def report(written: tuple[int, ...], *actors: Seen, program=CHAIN, **more) -> HangReport:
    snapshot = Snapshot(graph="a", written=written, actors=actors, **more)
    return diagnose(program, _Names(), snapshot)


def labels(*numbers: int, program=CHAIN) -> tuple[str, ...]:
    return tuple(program.participants[number] for number in numbers)


def test_the_end_of_the_waiting_is_to_blame() -> None:
    found = report((1, 1, 0, 0), seen(1, 1), computing(2), reading(3))
    assert found.blamed == labels(2)
    assert not found.circle
    one, two, three = found.actors
    assert (one.state, one.execution) == ("idle", 1)
    assert (two.state, two.text, two.for_s) == ("busy", "is in node 2", 2.5)
    assert (three.state, three.waits_for) == ("waiting", labels(2))
    assert found.summary == (
        f"execution 0 of graph a is unfinished: {labels(2)[0]} is in node 2, for 2.500 s"
    )


def test_the_text_says_for_each_execution_who_is_where() -> None:
    stack = Activity(stack=('File "a.py", line 3, in work', 'File "b.py", line 7, in wait'))
    found = report((4, 4, 1, 1), seen(1, 4), computing(2, 1, activity=stack), reading(3, 1))
    first, second, third = labels(1, 2, 3)
    owner = CHAIN.channels[3].label
    assert str(found) == "\n".join(
        [
            f"executions 1 to 3 of graph a are unfinished: {second} is in node 2, for 2.500 s",
            "  execution 1:",
            f"    driver waits for {owner} from {third}",
            f"    {second} is in node 2, for 2.500 s",
            '      File "a.py", line 3, in work',
            '      File "b.py", line 7, in wait',
            f"    {third} waits for {CHAIN.channels[2].label} from {second}, for 2.000 s",
            f"    finished by {first}",
            "  executions 2 to 3:",
            f"    driver waits for {owner} from {third}",
            f"    finished by {first}",
            f"    not begun by {second}, {third}",
        ]
    )


def test_the_text_says_since_when_everybody_waits() -> None:
    since = {0: 9.0, 1: 2.25, 3: 0.5}
    actors = (seen(1, 4), computing(2, 1), seen(3, 1, for_s=8.0))
    found = report((4, 4, 1, 1), *actors, waited_s=2.0, submitted_s=since)
    lines = str(found).splitlines()
    label, owner = CHAIN.channels[2].label, CHAIN.channels[3].label
    second, third = labels(2, 3)
    assert lines[1] == "  execution 1, submitted 2.250 s ago:"
    assert lines[2] == f"    driver waits for {owner} from {third}, for 2.000 s"
    waiting = f"    {third} has not begun it: waits for {label} from {second}"
    assert f"{waiting}, for 2.250 s" in lines  # not since its last step: 8 s
    assert "  executions 2 to 3:" in lines  # nothing is known of the first of them
    actors = (seen(1, 4), computing(2, 1), seen(3, 1, for_s=0.25))
    found = report((4, 4, 1, 1), *actors, submitted_s=dict.fromkeys(range(4), 1.0))
    assert f"{waiting}, for 0.250 s" in str(found)
    assert "  executions 2 to 3, the first submitted 1.000 s ago:" in str(found)


def test_an_actor_that_is_behind_is_to_blame_for_later_executions_too() -> None:
    found = report((3, 3, 3, 2), seen(1, 3), seen(2, 3), computing(3, 2))
    assert (found.first, found.submitted) == (2, 3)
    assert found.blamed == labels(3)


def test_of_several_outputs_the_late_one_leads_to_who_is_to_blame() -> None:
    program = program_of(fan_out(paper(3)))
    late = next(step.channel for step in program.steps[0] if isinstance(step, Read))
    writer = program.channels[late].writer
    written = tuple(1 if spec.index == late else 3 for spec in program.channels)
    actors = [computing(n, 1, program) if n == writer else seen(n, 3) for n in (1, 2, 3)]
    found = report(written, *actors, program=program)
    assert found.blamed == labels(writer, program=program)
    text = str(found)
    assert f"driver waits for {program.channels[late].label} from {found.blamed[0]}" in text
    assert text.count("driver waits for") == 2  # once for each execution: the others are there


def test_one_that_has_not_begun_although_its_input_is_there_is_to_blame() -> None:
    busy = Activity(call="Worker.other", call_for_s=9.0, stack=('File "a.py", line 1, in x',))
    found = report((1, 0, 0, 0), seen(1, activity=busy), seen(2), seen(3))
    assert found.blamed == labels(1)
    one, two, _ = found.actors
    assert "has not begun it, although" in one.text
    assert one.text.endswith("in the call Worker.other, for 9.000 s")
    assert one.stack
    assert two.text.startswith("has not begun it: waits for ")
    assert two.waits_for == labels(1)


def test_the_dead_and_the_stopped_are_named() -> None:
    stopped = Activity(state="stopped by a signal")
    found = report(
        (2, 1, 0, 0), computing(1, 1, activity=stopped), seen(2, 0, death="it\nwas killed"), seen(3)
    )
    assert found.actors[0].text == "is in node 1 (stopped by a signal)"
    assert (found.actors[1].state, found.actors[1].text) == ("dead", "is dead: it")
    assert found.blamed == labels(2)


def test_a_value_that_is_there_is_waited_for_by_nobody() -> None:
    found = report((1, 1, 0, 0), seen(1, 1), reading(2), reading(3))
    assert found.blamed == labels(2)
    assert "is about to go on" in found.actors[1].text


def test_one_that_is_sending_waits_for_nobody_it_could_name() -> None:
    sending = seen(2, 1, 0, step_of(CHAIN, 2, Write), for_s=1.0)
    found = report((1, 1, 0, 0), seen(1, 1), sending, reading(3))
    assert found.blamed == labels(2)
    assert found.actors[1].text == f"is sending {CHAIN.channels[2].label} to {labels(3)[0]}"


def test_all_finished() -> None:
    found = report((3, 3, 3, 3), seen(1, 3), seen(2, 3), seen(3, 3, activity=Activity(call="W.f")))
    assert found.summary == "graph a: all 3 executions are finished"
    assert found.blamed == ()
    assert str(found).splitlines()[1:] == [
        f"  {labels(1)[0]} is idle",
        f"  {labels(2)[0]} is idle",
        f"  {labels(3)[0]} is in the call W.f, for 0.000 s",
    ]


def test_nobody_is_to_blame_for_what_is_about_to_go_on() -> None:
    found = report((1, 1, 1, 0), seen(1, 1), seen(2, 1), seen(3, 1))
    assert found.blamed == labels(3)  # its last write is still to come
    later = report((0, 0, 0, 0), seen(1), seen(2), seen(3))
    assert later.summary == "graph a: all 0 executions are finished"


@pytest.mark.parametrize("stack", [(), ('File "a.py", line 3, in ask',)])
def test_a_circle_of_a_step_and_a_get_is_shown(stack) -> None:
    wait = Wait(actor_id=ActorId(2), on=ActorId(3), text="C.help on actor C(3)", for_s=2.0)
    asking = computing(2, activity=Activity(wait=wait, stack=stack))
    found = report((1, 1, 0, 0), seen(1, 1), asking, reading(3))
    assert found.circle
    assert set(found.blamed) == set(labels(2, 3))
    assert found.summary.endswith("wait for each other in a circle")
    assert found.actors[1].text == "is in node 2, where get waits for C.help on actor C(3)"
    assert found.actors[1].stack == stack


def test_an_actor_that_waits_for_itself_is_no_circle_of_several() -> None:
    wait = Wait(actor_id=ActorId(2), on=ActorId(2), text="C.help on actor C(2)", for_s=2.0)
    found = report((1, 1, 0, 0), seen(1, 1), computing(2, activity=Activity(wait=wait)), reading(3))
    assert found.circle
    assert found.summary.endswith(f"is unfinished: {labels(2)[0]} waits for itself")


def test_a_get_from_somebody_outside_of_the_graph_ends_the_waiting() -> None:
    wait = Wait(actor_id=ActorId(2), on=ActorId(77), text="X.help on actor X(77)", for_s=2.0)
    found = report((1, 1, 0, 0), seen(1, 1), computing(2, activity=Activity(wait=wait)), reading(3))
    assert found.blamed == labels(2)
    assert not found.circle


def test_ranks_wait_for_those_that_have_not_come() -> None:
    program = RANKS
    start = step_of(program, 1, CollectiveStart)
    written = tuple(int(spec.writer == 0) for spec in program.channels)
    here = seen(1, 1, 0, start, for_s=1.0)
    found = report(written, here, computing(2, program=program), program=program)
    assert found.actors[0].waits_for == labels(2, program=program)
    assert "waits in allreduce" in found.actors[0].text
    assert "rank 0 of 2" in found.actors[0].text
    assert found.blamed == labels(2, program=program)
    both = report(written, here, seen(2, 1, 0, start), program=program)
    assert [actor.state for actor in both.actors] == ["busy", "busy"]
    assert "with all ranks" in both.actors[0].text
    passed = seen(2, 1, 0, step_of(program, 2, CollectiveWait))
    assert "with all ranks" in report(written, here, passed, program=program).actors[1].text
    late = report(written, here, seen(2, 0), program=program)
    assert late.actors[0].waits_for == labels(2, program=program)


def test_an_ended_graph_says_so() -> None:
    import dataclasses

    found = report((1, 1, 0, 0), seen(1, 1), computing(2), reading(3))
    ended = dataclasses.replace(found, ended="graph a was torn down")
    assert str(ended).splitlines()[0] == "graph a was torn down"
    assert "is in node 2" in str(ended)


def test_a_program_that_was_parsed_serves_too() -> None:
    found = report((1, 1, 0, 0), seen(1, 1), computing(2), reading(3), program=parse(str(CHAIN)))
    assert found.blamed == labels(2)


def met_program():
    """Return a program whose two actors meet for a value that a communicator carries."""
    first, second = actors = paper(2)
    with InputNode() as inp:
        value = first.add.bind(inp).with_tensor_transport(PaperCommunicator(actors))
        return program_of(second.add.bind(value))


def test_who_has_not_come_to_where_a_value_is_handed_over_is_waited_for() -> None:
    met = met_program()
    writing = step_of(met, 1, Write)
    first, second = labels(1, 2, program=met)
    found = report((2, 2, 0), seen(1, 2, 1, writing), computing(2, program=met), program=met)
    assert found.blamed == (second,)
    writer, _ = found.actors
    assert writer.waits_for == (second,)
    assert writer.text == f"is sending Worker.add#1 to {second}: waits for {second} to take it"
    found = report((2, 1, 1), computing(1, 1, program=met), reading(2, 1, program=met), program=met)
    assert found.blamed == (first,)


def test_where_all_ends_have_come_the_communicator_is_what_takes_long() -> None:
    met = met_program()
    writing = step_of(met, 1, Write)
    first, second = labels(1, 2, program=met)
    found = report((1, 1, 0), seen(1, 1, 0, writing), reading(2, program=met), program=met)
    assert found.blamed == (second,)
    writer, reader = found.actors
    assert (writer.state, writer.text) == ("busy", f"is sending Worker.add#1 to {second}")
    assert (reader.state, reader.text) == ("busy", f"is taking Worker.add#1 from {first}")
