from __future__ import annotations

import pickle

import pytest

from collective import allreduce
from compiled_dag import GraphError, GraphUsageError, InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.ir import DRIVER, Output
from tests.graphs import SAMPLES, PaperHost, chain, paper, pipeline

HERE = r"test_capture\.py:\d+"


def graph_of(output):
    return capture(output).graph


def labels(graph):
    return [node.label for node in graph.nodes]


# --- numbering ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_nodes_are_numbered_in_order_of_their_place(name) -> None:
    build, num_actors = SAMPLES[name]
    graph = graph_of(build(paper(num_actors)))
    assert [node.id for node in graph.nodes] == list(range(len(graph.nodes)))


def test_the_input_is_number_0_and_nodes_follow_breadth_first() -> None:
    first, second, third = paper(3)
    with InputNode() as inp:
        deep = second.add.bind(first.add.bind(inp))
        output = MultiOutputNode([third.join.bind(deep), third.echo.bind(inp)])
    assert labels(graph_of(output)) == [
        "input",
        "Worker.add",
        "Worker.echo",
        "Worker.add",
        "MultiOutputNode",
        "Worker.join",
    ]


def test_a_node_that_waits_for_nobody_is_numbered_after_its_reader() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = worker.join.bind(worker.zeros.bind(3), worker.echo.bind(inp))
    assert labels(graph_of(output)) == [
        "input",
        "Worker.echo",
        "Worker.join",
        "Worker.zeros",
        "output",
    ]


def test_an_output_that_compile_adds_is_numbered_last_one_of_the_users_in_its_place() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        ones = first.divide.options(num_returns=3).bind(inp)
        ends = [second.echo.bind(ones[0]), second.echo.bind(ones[2])]
        twos = second.divide.options(num_returns=2).bind(ones[1])
        output = MultiOutputNode([*ends, *twos])
    assert [(n.id, n.label) for n in graph_of(output).nodes if isinstance(n.op, Output)] == [
        (8, "MultiOutputNode")  # what Ray 2.60 gives it: elements of the second call follow
    ]
    assert labels(graph_of(chain([first]))) == ["input", "Worker.add", "output"]


def test_actors_are_in_the_order_of_binding() -> None:
    first, second, third = paper(3)
    graph = graph_of(chain([third, first, second]))
    assert graph.actors == (3, 1, 2)
    assert graph.labels == ("Worker(3)", "Worker(1)", "Worker(2)")


def test_an_actor_near_the_input_stands_where_it_was_bound() -> None:
    begin, middle, end = paper(3)
    with InputNode() as inp:
        output = end.join.bind(inp, middle.echo.bind(begin.echo.bind(inp)))
    assert graph_of(output).actors == (1, 2, 3)


def test_capturing_twice_gives_equal_graphs_and_leaves_the_nodes_alone() -> None:
    output = pipeline(paper(2))
    before = [(node._bound_args, node._downstream[:]) for node in output._upstream()]
    assert graph_of(output) == graph_of(output)
    assert [(node._bound_args, node._downstream) for node in output._upstream()] == before


def test_a_graph_is_data() -> None:
    graph = graph_of(pipeline(paper(2)))
    assert pickle.loads(pickle.dumps(graph)) == graph


# --- arguments ------------------------------------------------------------------------------------


def test_arguments_become_templates_over_values_and_constants() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.pack.bind([inp, {"k": (inp, 5)}], [1, 2], flag=None)
    captured = capture(node)
    assert str(captured.graph.nodes[1]) == "v1 = pack([v0, {c0: (v0, c1)}], c2, flag=c3)"
    assert captured.constants == ("k", 5, [1, 2], None)


def test_containers_without_nodes_stay_one_constant() -> None:
    (worker,) = paper(1)
    weights = {"a": [1, (2, 3)]}
    with InputNode() as inp:
        node = worker.join.bind(inp, weights)
    assert capture(node).constants[0] is weights


def test_an_output_given_twice_and_constants_are_outputs() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.echo.bind(inp)
        output = MultiOutputNode([node, node, 7])
    graph = graph_of(output)
    assert [str(tree) for tree in graph.outputs] == ["v1", "v1", "c0"]
    assert not graph.single_output


def test_nodes_know_their_actor_and_the_input_is_on_the_driver() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        output = MultiOutputNode(allreduce.bind([second.grad.bind(inp), first.grad.bind(inp)]))
    graph = graph_of(output)
    assert [node.actor for node in graph.nodes] == [DRIVER, 2, 1, 2, 1, DRIVER]
    (operation,) = graph.operations
    assert (operation.members, operation.nodes) == ((2, 1), (3, 4))
    assert operation.text == "allreduce(SUM)"


# --- what is refused ------------------------------------------------------------------------------


def test_two_inputs_are_refused_with_their_line() -> None:
    (worker,) = paper(1)
    with InputNode() as one, InputNode() as other:
        node = worker.join.bind(one, other)
    with pytest.raises(GraphUsageError, match=rf"2 InputNodes, made at {HERE}\. Use one"):
        capture(node)


def test_an_input_used_without_with_is_refused() -> None:
    (worker,) = paper(1)
    with pytest.raises(GraphUsageError, match=rf"made at {HERE} was not entered: `with Input"):
        capture(worker.echo.bind(InputNode()))


def test_a_second_output_is_refused_with_its_line() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.echo.bind(inp)
        MultiOutputNode([node])
        output = MultiOutputNode([node])
    with pytest.raises(
        GraphUsageError, match=f"another output, the MultiOutputNode made at {HERE}"
    ):
        capture(output)


def test_outputs_made_on_one_line_are_counted_and_the_line_is_told_once() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        *_, output = [MultiOutputNode([worker.echo.bind(inp)]) for _ in range(3)]
    with pytest.raises(GraphUsageError, match=rf"2 MultiOutputNodes made at {HERE}\. Compile"):
        capture(output)


def test_an_output_is_no_argument() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.join.bind(MultiOutputNode([worker.echo.bind(inp)]))
    with pytest.raises(GraphError, match="output"):
        capture(node)


@pytest.mark.parametrize("outputs", [[], [3]])
def test_a_graph_calls_at_least_one_actor(outputs) -> None:
    with pytest.raises(GraphError, match="calls nothing: bind at least one method"):
        capture(MultiOutputNode(outputs))


class Late:
    """Its methods return before their work is done."""

    async def coroutine(self, value):
        return value

    def generator(self, value):
        yield value

    async def async_generator(self, value):
        yield value


@pytest.mark.parametrize("name", ["coroutine", "generator", "async_generator"])
def test_a_method_that_returns_before_its_work_is_done_is_refused_with_its_line(name) -> None:
    (late,) = paper(1, kind=Late)
    with InputNode() as inp:
        node = getattr(late, name).bind(inp)
    kind = f"an? {name.replace('_', ' ')} method"
    with pytest.raises(GraphError, match=rf"Late\.{name}, bound at {HERE}, is {kind}\. In a graph"):
        capture(node)


def test_arguments_that_became_cyclic_after_the_bind_are_refused_at_compile() -> None:
    (worker,) = paper(1)
    argument = [1]
    with InputNode() as inp:
        node = worker.join.bind(inp, argument)
    argument.append(argument)
    with pytest.raises(
        GraphError, match=rf"argument 1 of Worker\.join, bound at {HERE}, is cyclic"
    ):
        capture(node)


def test_an_input_alone_is_no_graph() -> None:
    with InputNode() as inp:
        pass
    with pytest.raises(GraphError, match="calls nothing: bind at least one method"):
        capture(inp)


def test_nodes_of_a_session_that_has_ended_are_refused_by_name() -> None:
    host = PaperHost()
    (worker,) = paper(1, host=host)
    with InputNode() as inp:
        node = worker.echo.bind(inp)
    host.closed = True
    text = rf"<ClassMethodNode Worker\.echo bound at {HERE}> belongs to a session that has ended"
    with pytest.raises(GraphError, match=text):
        capture(node)


def test_actors_of_two_sessions_are_refused_by_name() -> None:
    (ours,), (theirs,) = paper(1), paper(1, host=PaperHost())
    theirs.actor_id = 2
    with InputNode() as inp:
        node = theirs.echo.bind(ours.echo.bind(inp))
    name = rf"Worker\(1\) \(called by Worker\.echo, bound at {HERE}\)"
    with pytest.raises(GraphError, match=f"different sessions: {name}, {name}"):
        capture(node)


def test_actors_of_two_sessions_with_one_number_are_told_apart() -> None:
    (ours,), (theirs,) = paper(1), paper(1, host=PaperHost())
    with InputNode() as inp:
        node = theirs.echo.bind(ours.echo.bind(inp))
    with pytest.raises(GraphError, match="different sessions"):
        capture(node)
