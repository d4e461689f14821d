from __future__ import annotations

import pickle

import pytest

from compiled_dag import DeadlockError, GraphError, InputNode
from compiled_dag.capture import capture
from compiled_dag.compiler import compile_graph
from compiled_dag.options import CompileOptions
from tests.graphs import SAMPLES, chain, paper, program_of


def test_an_illegal_graph_is_refused_before_it_is_ordered() -> None:
    (worker,) = paper(1)
    arguments = []
    node = worker.pack.bind(arguments)
    arguments.append(node)
    with pytest.raises(GraphError, match="form a cycle") as raised:
        program_of(node)
    assert not isinstance(raised.value, DeadlockError)


def test_a_graph_that_would_wait_for_itself_is_refused() -> None:
    (worker,) = paper(1)
    arguments = []
    with InputNode() as inp:
        early = worker.pack.bind(inp, arguments)
        arguments.append(worker.echo.bind(inp))
    with pytest.raises(DeadlockError, match="would wait for itself"):
        program_of(early)


def test_channels_are_as_deep_as_executions_may_be_in_flight() -> None:
    program = program_of(chain(paper(2)), max_inflight=7)
    assert program.depth == 7
    assert {spec.depth for spec in program.channels} == {7}


@pytest.mark.parametrize("name", SAMPLES)
def test_one_graph_has_one_program(name) -> None:
    build, num_actors = SAMPLES[name]
    output = build(paper(num_actors))
    assert program_of(output) == program_of(output)


@pytest.mark.parametrize("name", SAMPLES)
def test_graphs_that_are_drawn_alike_have_equal_programs(name) -> None:
    build, num_actors = SAMPLES[name]
    assert program_of(build(paper(num_actors))) == program_of(build(paper(num_actors)))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_program_is_data_without_live_objects(name) -> None:
    build, num_actors = SAMPLES[name]
    graph = capture(build(paper(num_actors))).graph
    program = compile_graph(graph, CompileOptions())
    assert pickle.loads(pickle.dumps(program)) == program


def test_the_proof_can_be_left_out_and_changes_nothing_else(monkeypatch) -> None:
    output = chain(paper(2))
    proved = program_of(output)
    monkeypatch.setattr("compiled_dag.compiler.simulate", _refuse)
    assert program_of(output, enable_detect_deadlock=False) == proved
    with pytest.raises(DeadlockError, match="asked"):
        program_of(output)


def _refuse(_program) -> None:
    raise DeadlockError("asked")
