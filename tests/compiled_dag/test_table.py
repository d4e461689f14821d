from __future__ import annotations

import dataclasses
import textwrap

import pytest
from hypothesis import given, settings

from collective import allreduce
from compiled_dag import InputNode, MultiOutputNode, table
from compiled_dag.ir import NodeId, OperationId
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Entry,
    Read,
    Release,
    Write,
)
from compiled_dag.simulate import simulate
from compiled_dag.table import parse, parse_step, render, step_text
from compiled_dag.tree import Arguments, Const, ListOf, Val
from tests.communicators import PaperCommunicator
from tests.compiled_dag import goldens
from tests.graphs import SAMPLES, chain, paper, program_of
from tests.recipes import Machine, draw, recipes

GOOD = render(program_of(chain(paper(1)))).splitlines()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_program_of_a_sample_graph_is_the_golden_one(name) -> None:
    """After an intended change see `tests.compiled_dag.goldens` for how to regenerate."""
    assert f"{goldens.program(name)}\n" == goldens.path(name).read_text()


def test_every_golden_file_has_its_sample() -> None:
    assert {path.stem for path in goldens.FOLDER.glob("*.txt")} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_golden_program_parses_and_holds_its_proof(name) -> None:
    program = parse(goldens.path(name).read_text())
    assert program == goldens.program(name)
    simulate(program)


@settings(max_examples=100)
@given(recipes(collectives=True))
def test_a_printed_program_parses_back(recipe) -> None:
    program = program_of(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    assert parse(render(program)) == program


@pytest.mark.parametrize(
    "hint", [("nccl",), ("auto", "cuda", True, True), ("shm", "cpu"), ("communicator",)]
)
def test_hints_and_communicators_parse_back(hint) -> None:
    first, second = paper(2)
    first.num_gpus = second.num_gpus = 1.0
    members = PaperCommunicator([first, second])
    if hint == ("communicator",):
        hint = (members,)
    with InputNode() as inp:
        values = [first.add.bind(inp).with_tensor_transport(*hint), second.add.bind(inp)]
        sums = allreduce.bind([first.grad.bind(inp), second.grad.bind(inp)], transport=members)
        program = program_of(MultiOutputNode([second.join.bind(*values), *sums]))
    assert program.operations[0].communicator is not None
    assert parse(str(program)) == program


def test_the_example_in_the_documentation_parses_and_is_what_is_printed() -> None:
    example = textwrap.dedent(table.__doc__.split("::\n", 1)[1].split("\nSteps:")[0]).strip()
    printed = render(parse(example)).splitlines()
    assert printed[1:] == example.splitlines()[1:]  # the first is a comment, shortened there


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Read(3, 0), "R3 v0"),
        (Write(3, 0), "W3 v0"),
        (Compute(NodeId(4), "f", Arguments(), (1,)), "C4 v1=f()"),
        (Compute(NodeId(4), "f", Arguments((Val(0),)), (1,), unpack=True), "C4 v1,=f(v0)"),
        (
            Compute(
                NodeId(12),
                "über",
                Arguments((ListOf((Val(0),)),), (("key", Const(1)),)),
                (1, 2),
                unpack=True,
            ),
            "C12 v1,v2,=über([v0], key=c1)",
        ),
        (
            Compute(NodeId(4), "f", Arguments((), (("a|b", Val(0)), ("c", Const(0)))), (1,)),
            r"C4 v1=f(**{'a\x7cb': v0}, c=c0)",
        ),
        (CollectiveStart(OperationId(0), (2,)), "S0 v2"),
        (CollectiveStart(OperationId(0), (2, 4)), "S0 v2,v4"),
        (CollectiveStart(OperationId(0), ()), "S0 -"),
        (CollectiveWait(OperationId(0), (2,)), "J0 v2"),
        (CollectiveWait(OperationId(1), (2, 3)), "J1 v2,v3"),
        (Release((1, 3)), "D v1,v3"),
    ],
)
def test_a_step_is_a_few_characters_and_parses_back(step, text) -> None:
    assert step_text(step) == text
    assert parse_step(text) == step


@pytest.mark.parametrize(
    "text", ["", "R", "R0", "R0 0", "X0 v0", "R0 v0 v1", "D", "D v0,", "C v=f()"]
)
def test_other_text_is_no_step(text) -> None:
    with pytest.raises(ValueError, match="not a step"):
        parse_step(text)


@pytest.mark.parametrize("key", [None, 0, 3, "rate", "-", "two words", "it's", "tab\tnew\nline"])
def test_any_key_of_an_input_survives(key) -> None:
    program = dataclasses.replace(program_of(chain(paper(1))), entries=(Entry(key=key, slot=0),))
    assert parse(render(program)) == program


def test_a_tick_is_a_row_and_a_participant_a_column() -> None:
    rows = [line.split("|") for line in GOOD if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[:3] == [["step", "driver", "Worker(1)"], ["0", "W0 v0", ""], ["1", "", "R0 v0"]]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (1, "program deep=10 single"),
        (1, "program inflight=10"),
        (1, "program inflight=10 several"),
        (2, "participant 0"),
        (4, "channel 0 0>one 0 input"),
        (4, "channel 0 0-1 0 input"),
        (4, "channel 0 0>1 input"),
        (4, "channel zero 0>1 0 input"),
        (6, "transport 0"),
        (6, "transport 9 host default | x"),
        (6, "transport 0 wire default | x"),
        (6, "transport 0 host moon | x"),
        (6, "through 0 0"),
        (6, "slots 2,two"),
        (7, "entry key v0"),
        (7, "entry - zero"),
        (8, "output"),
        (8, "output v0 v1"),
        (10, "   0 | W0"),
        (10, "   0 | W0 v0 | R0 v0 | R0 v0"),
        (10, "zero | W0 v0"),
        (11, "nonsense"),
    ],
)
def test_malformed_text_is_refused_with_its_line(line, text) -> None:
    lines = [*GOOD[: line - 1], text, *GOOD[line:]]
    with pytest.raises(ValueError, match=f"^line {line} of the program is malformed: "):
        parse("\n".join(lines))


def test_lines_are_counted_as_the_reader_sees_them() -> None:
    with pytest.raises(ValueError, match=r"^line 3 .*'nonsense'"):
        parse(f"\n{GOOD[0]}\nnonsense\n")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_no_text_is_no_program(text) -> None:
    with pytest.raises(ValueError, match="no program"):
        parse(text)
