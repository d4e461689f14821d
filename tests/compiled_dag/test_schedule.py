from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings

from compiled_dag import DeadlockError, GraphError, InputNode, Schedule
from compiled_dag.capture import capture
from compiled_dag.compiler import compile_graph
from compiled_dag.ir import Call, Collective
from compiled_dag.options import CompileOptions
from compiled_dag.schedule import Op
from tests.communicators import PaperCommunicator
from tests.compiled_dag import goldens
from tests.graphs import (
    data_parallel,
    gpipe,
    one_forward_one_backward,
    paper,
    staged,
)
from tests.recipes import Machine, draw, recipes


def schedule_of(output):
    graph = capture(output).graph
    return Schedule.of(compile_graph(graph, CompileOptions()), graph)


def tasks(schedule, actor):
    """Return the names of what an actor computes, in order."""
    names = dict(schedule.names)
    return [names[op.node].split(".")[1] for op in schedule[actor] if op.kind == "COMPUTE"]


# --- golden ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", goldens.SCHEDULED)
def test_the_schedule_of_a_sample_graph_is_the_golden_one(name) -> None:
    """After an intended change see `tests.compiled_dag.goldens` for how to regenerate."""
    text = (goldens.SCHEDULES / f"{name}.txt").read_text()
    assert f"{goldens.schedule(name)}\n" == text
    parsed = Schedule.parse(text)
    assert parsed == goldens.schedule(name)
    parsed.verify()


def test_every_golden_schedule_has_its_sample() -> None:
    assert {path.stem for path in goldens.SCHEDULES.iterdir()} == set(goldens.SCHEDULED)


# --- pipelines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_stages", [1, 2, 3, 4])
@pytest.mark.parametrize("batches", [1, 2, 5, 8])
@pytest.mark.parametrize("order", [gpipe, one_forward_one_backward])
def test_the_stages_of_a_pipeline_work_exactly_as_they_were_bound(
    order, num_stages, batches
) -> None:
    stages = order(num_stages, batches)
    schedule = schedule_of(staged(paper(num_stages), stages))
    for number, stage in enumerate(stages, 1):
        assert tasks(schedule, f"Worker({number})") == [method for method, _ in stage]
    schedule.verify()
    dataclasses.replace(schedule, depth=1).verify()


def test_one_forward_one_backward_of_two_stages_interleaves_in_bind_order() -> None:
    schedule = schedule_of(staged(paper(2), one_forward_one_backward(2, 2)))
    assert tasks(schedule, "Worker(1)") == ["forward", "forward", "backward", "backward"]
    assert tasks(schedule, "Worker(2)") == ["forward", "backward", "forward", "backward"]


# --- any graph ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(recipes(collectives=True))
def test_any_schedule_prints_parses_back_and_is_proved_again(recipe) -> None:
    schedule = schedule_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    assert Schedule.parse(str(schedule)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    schedule.verify()


@settings(max_examples=40)
@given(recipes(collectives=True))
def test_every_actor_works_in_the_order_its_nodes_were_bound(recipe) -> None:
    graph = capture(draw(recipe, paper(recipe.num_actors, kind=Machine))).graph
    schedule = Schedule.of(compile_graph(graph, CompileOptions()), graph)
    for actor, label in zip(graph.actors, graph.labels, strict=True):
        bound = [n for n in graph.nodes if n.actor == actor and isinstance(n.op, Call | Collective)]
        in_order = [node.id for node in sorted(bound, key=lambda node: node.order)]
        assert [op.node for op in schedule[label] if op.kind in ("COMPUTE", "START")] == in_order


@settings(max_examples=40)
@given(recipes(collectives=True))
def test_what_is_written_is_read_by_whom_it_says(recipe) -> None:
    schedule = schedule_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    written = {(label, peer, op.channel) for label, ops in schedule.lanes for op in ops
               if op.kind == "WRITE" for peer in op.peers}  # fmt: skip
    read = {(op.peers[0], label, op.channel) for label, ops in schedule.lanes for op in ops
            if op.kind == "READ"}  # fmt: skip
    assert written == read


def test_peers_that_bind_alike_work_alike() -> None:
    schedule = schedule_of(data_parallel(paper(4)))
    kinds = {tuple(op.kind for op in ops) for ops in schedule.values()}
    assert kinds == {("READ", "COMPUTE", "START", "WAIT", "COMPUTE", "WRITE")}


# --- data -----------------------------------------------------------------------------------------


def test_a_schedule_maps_actors_to_operations() -> None:
    schedule = schedule_of(data_parallel(paper(2)))
    assert list(schedule) == ["Worker(1)", "Worker(2)"]
    assert len(schedule) == 2
    assert "driver" not in schedule
    assert schedule["Worker(1)"] == (
        Op(1, "READ", ("driver",), 0),
        Op(1, "COMPUTE"),
        Op(3, "START", ("Worker(2)",), 0),
        Op(3, "WAIT", ("Worker(2)",), 0),
        Op(5, "COMPUTE"),
        Op(5, "WRITE", ("driver",), 1),
    )
    assert [op.kind for op in schedule.driver] == ["WRITE", "READ", "READ"]
    assert repr(schedule) == "<Schedule of 2 actors, 15 ops>"
    with pytest.raises(KeyError):
        schedule["Worker(3)"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.depth = 1
    assert hash(schedule) == hash(schedule_of(data_parallel(paper(2))))


def test_scheduling_needs_neither_a_session_nor_torch() -> None:
    code = """
import sys
from collective import allreduce
from compiled_dag import Schedule
from tests.compiled_dag import goldens
for name in goldens.SCHEDULED:
    Schedule.parse(str(goldens.schedule(name))).verify()
assert "torch" not in sys.modules, "torch was imported"
from runtime import is_initialized
assert not is_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


# --- the proof ------------------------------------------------------------------------------------

PIPELINE = str(goldens.schedule("1f1b_2"))


def swapped(text, first, second):
    """Exchange two lines."""
    lines = text.splitlines()
    lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)


def line_of(text, *words):
    (found,) = [n for n, line in enumerate(text.splitlines()) if line.split() == list(words)]
    return found


def cells(text):
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]


def test_an_edited_schedule_that_would_wait_for_itself_is_refused_with_the_cycle() -> None:
    rows = cells(PIPELINE)
    write = next(n for n, row in enumerate(rows) if row[:2] == ["Worker(1)", "WRITE"])
    read = next(
        n for n, row in enumerate(rows) if row[:2] == ["Worker(1)", "READ"] and row[4] != "driver"
    )
    edited = Schedule.parse(swapped(PIPELINE, write, read))
    with pytest.raises(DeadlockError) as raised:
        edited.verify()
    first, *lines = str(raised.value).splitlines()
    assert first == "the program would wait for itself:"
    assert lines[0].startswith("  Worker(1), node ")
    assert "waits for Worker(2) to write Worker.backward#" in lines[0]
    assert lines[1].startswith("  Worker(2), node ")
    assert "waits for Worker(1) to write Worker.forward#" in lines[1]
    assert lines[2] == "and behind that:"
    assert lines[3].startswith("  driver, output")


def test_a_rank_that_left_a_collective_out_is_found() -> None:
    text = str(goldens.schedule("data_parallel_2"))
    kept = [
        row
        for row in text.splitlines()
        if not row.startswith(("Worker(2) | START", "Worker(2) | WAIT"))
    ]
    with pytest.raises(
        DeadlockError, match=r"Worker\(1\), node 3 .*allreduce\(AVG\) for Worker\(2\)"
    ):
        Schedule.parse("\n".join(kept)).verify()


def test_a_value_nobody_writes_is_found() -> None:
    kept = [row for row in PIPELINE.splitlines() if "Worker(2) | WRITE" not in row]
    with pytest.raises(DeadlockError, match=r"waits for Worker\(2\) to write"):
        Schedule.parse("\n".join(kept)).verify()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Worker(2) | WRITE | 1 | 0 | Worker(1) | input", r"written twice, by driver and Worker"),
        ("Worker(2) | READ | 1 | 0 | Worker(1) | input", r"reads channel 0 from Worker\(1\), but"),
        ("Worker(2) | READ | 1 | 0 | driver | input", r"Worker\(2\) reads channel 0 from driver"),
        ("Worker(2) | WRITE | 1 | 99 | Worker(7) | input", r"Worker\(7\) takes part in no"),
    ],
)
def test_operations_that_contradict_each_other_are_refused(row, message) -> None:
    head = "schedule inflight=2 of Worker(1), Worker(2)"
    write = "driver | WRITE | 1 | 0 | Worker(1) | input"
    read = "Worker(1) | READ | 1 | 0 | driver | input"
    text = f"{head}\n{write}\n{read}\n{row}"
    with pytest.raises(GraphError, match=message):
        Schedule.parse(text).verify()


# --- malformed text -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (1, "program inflight=2 of A"),
        (1, "schedule inflight=none of A"),
        (1, "schedule inflight=0 of A"),
        (1, "schedule inflight=2"),
        (3, "Worker(1) | READ | 0 | 0 | driver"),
        (3, "Worker(1) | SEND | 0 | 0 | driver | input"),
        (3, "Worker(1) | READ | zero | 0 | driver | input"),
        (3, "Worker(1) | READ | 0 | zero | driver | input"),
        (3, "Worker(1) | READ | 0 | | driver | input"),
        (3, "Worker(1) | READ | 0 | 0 | | input"),
        (3, "Worker(1) | COMPUTE | 1 | 0 | driver | Worker.add"),
        (3, "Worker(9) | READ | 0 | 0 | driver | input"),
        (4, "Worker(1) | COMPUTE | 0 | | | Worker.other"),
    ],
)
def test_malformed_text_is_refused_with_its_line(line, text) -> None:
    good = [
        "schedule inflight=2 of Worker(1)",
        "actor | operation | node | channel | peers | name",
        "driver | WRITE | 0 | 0 | Worker(1) | input",
        "Worker(1) | READ | 0 | 0 | driver | input",
    ]
    Schedule.parse("\n".join(good)).verify()
    edited = [*good[: line - 1], text, *good[line:]]
    with pytest.raises(ValueError, match=f"^line {line} of the schedule is malformed: "):
        Schedule.parse("\n".join(edited))


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_no_text_is_no_schedule(text) -> None:
    with pytest.raises(ValueError, match="line 1"):
        Schedule.parse(text)


def test_values_that_a_communicator_carries_are_proved_with_all_ends_meeting() -> None:
    first, second = paper(2)
    by = PaperCommunicator([first, second])
    with InputNode() as inp:
        one = first.echo.bind(inp).with_tensor_transport(by)
        two = first.add.bind(inp).with_tensor_transport(by)
        output = second.join.bind(second.echo.bind(two), one)
    schedule = schedule_of(output)
    assert schedule.meetings == (1, 2)
    assert Schedule.parse(str(schedule)) == schedule
    schedule.verify()
    swapped = str(schedule).splitlines()
    reads = [n for n, line in enumerate(swapped) if line.startswith("Worker(2) | READ")]
    assert len(reads) == 2
    swapped[reads[0]], swapped[reads[1]] = swapped[reads[1]], swapped[reads[0]]
    with pytest.raises(DeadlockError, match=r"waits for Worker\(2\) to take part in Worker.echo"):
        Schedule.parse("\n".join(swapped)).verify()


@pytest.mark.parametrize("wrong", [None, b"schedule", 3])
def test_what_is_no_text_is_no_schedule(wrong) -> None:
    with pytest.raises(TypeError, match=f"takes the text of a schedule, not {wrong!r}"):
        Schedule.parse(wrong)
