from __future__ import annotations

import re

import pytest

from compiled_dag import GraphError, InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.ir import Graph
from compiled_dag.lint import (
    check_cycles,
    check_fields_used,
    check_has_input,
    check_input_forms,
    check_leaves,
    check_outputs,
    contributing,
    lint,
)
from tests.graphs import SAMPLES, paper

HERE = r"\(node \d+, bound at test_lint\.py:\d+\)"


@pytest.fixture
def worker():
    (worker,) = paper(1)
    return worker


def graph_of(output):
    return capture(output).graph


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_graphs_are_legal(name) -> None:
    build, num_actors = SAMPLES[name]
    lint(graph_of(build(paper(num_actors))))


def test_a_graph_without_input_is_refused(worker) -> None:
    graph = graph_of(worker.join.bind(worker.echo.bind(1)))
    with pytest.raises(GraphError, match=rf"no InputNode is reachable from Worker\.\w+ {HERE}"):
        check_has_input(graph)


def test_an_unused_result_is_named_with_its_line_and_the_remedy(worker) -> None:
    with InputNode() as inp:
        output = worker.add.bind(inp)
        worker.fail.bind(inp)
    with pytest.raises(GraphError, match=rf"Worker\.fail {HERE}\. Add it to the MultiOutputNode"):
        check_leaves(graph_of(output))


def test_every_unused_result_is_named(worker) -> None:
    with InputNode() as inp:
        output = worker.add.bind(inp)
        worker.echo.bind(inp)
        worker.join.bind(worker.fail.bind(inp))
    with pytest.raises(GraphError) as raised:
        check_leaves(graph_of(output))
    assert re.findall(r"Worker\.\w+", str(raised.value)) == ["Worker.echo", "Worker.join"]


def test_an_unused_element_of_several_returns_is_an_unused_result(worker) -> None:
    with InputNode() as inp:
        tens, _ones = worker.divide.options(num_returns=2).bind(inp)
    with pytest.raises(GraphError, match=rf"element 1 of Worker\.divide {HERE}"):
        check_leaves(graph_of(worker.add.bind(tens)))


def two_ranks(*, reads_both: bool) -> Graph:
    from collective import allreduce, reduce

    actors = paper(2)
    with InputNode() as inp:
        ours, theirs = allreduce.bind([actor.grad.bind(inp) for actor in actors])
        total = reduce.bind([actor.echo.bind(inp) for actor in actors], 1)
        found = [actors[0].step.bind(ours), total]
    return graph_of(MultiOutputNode([*found, theirs] if reads_both else found))


def test_what_a_collective_gives_each_rank_is_read() -> None:
    with pytest.raises(GraphError, match=rf"result of allreduce\(SUM\), rank 1 {HERE}\. Add it"):
        check_leaves(two_ranks(reads_both=False))
    graph = two_ranks(reads_both=True)
    check_leaves(graph)  # rank 0 of the reduce gets nothing
    assert contributing(graph) == {node.id for node in graph.nodes}


def test_an_input_field_that_reaches_no_output_is_named_beside_all_fields(worker) -> None:
    with InputNode() as inp:
        used, _unused = worker.add.bind(inp[0]), inp.scale
    with pytest.raises(
        GraphError,
        match=r"of the input's fields \(inp\[0\], inp\['scale'\]\) inp\['scale'\] does not reach",
    ):
        check_fields_used(graph_of(used))


def test_an_unused_field_is_told_before_the_leaf_that_reads_it(worker) -> None:
    with InputNode() as inp:
        output = worker.add.bind(inp[0])
        worker.add.bind(inp[1])
    with pytest.raises(GraphError, match=r"inp\[1\] does not reach the output"):
        lint(graph_of(output))


def test_the_input_is_used_whole_or_by_field(worker) -> None:
    with InputNode() as inp:
        output = worker.join.bind(worker.add.bind(inp), worker.echo.bind(inp[0]))
    with pytest.raises(GraphError) as raised:
        check_input_forms(graph_of(output))
    assert re.search(rf"whole \(by Worker\.add {HERE}\)", str(raised.value))
    assert re.search(rf"inp\[0\], by Worker\.echo {HERE}", str(raised.value))


def test_an_input_given_out_whole_counts_as_used_whole(worker) -> None:
    with InputNode() as inp:
        output = MultiOutputNode([inp, worker.add.bind(inp[0])])
    with pytest.raises(GraphError, match=rf"whole \(by MultiOutputNode {HERE}\)"):
        check_input_forms(graph_of(output))


@pytest.mark.parametrize("wrap", [lambda n: [n], lambda n: (1, n), lambda n: {"k": [n]}])
def test_a_node_inside_an_output_is_refused_with_the_remedy(worker, wrap) -> None:
    with InputNode() as inp:
        output = MultiOutputNode([inp, wrap(worker.add.bind(inp))])
    with pytest.raises(GraphError, match=rf"^output 1 .* Worker\.add {HERE} inside\. Make each"):
        check_outputs(graph_of(output))


def test_a_container_of_constants_is_an_output(worker) -> None:
    with InputNode() as inp:
        check_outputs(graph_of(MultiOutputNode([worker.add.bind(inp), [1, {"k": 2}]])))


def test_a_cycle_made_by_hand_is_shown(worker) -> None:
    arguments = []
    with InputNode() as inp:
        first = worker.pack.bind(inp, arguments)
        second = worker.echo.bind(first)
    arguments.append(second)
    arrow = rf"Worker\.pack {HERE} -> Worker\.echo {HERE} -> Worker\.pack"
    other = rf"Worker\.echo {HERE} -> Worker\.pack {HERE} -> Worker\.echo"
    with pytest.raises(GraphError, match=f"cycle: ({arrow}|{other})"):
        check_cycles(graph_of(second))


def test_a_cycle_is_told_before_anything_that_would_follow_it_for_ever(worker) -> None:
    arguments = []
    node = worker.pack.bind(arguments)
    arguments.append(node)
    with pytest.raises(GraphError, match="cycle"):
        lint(graph_of(node))
