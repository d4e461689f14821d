from __future__ import annotations

import copy
import pickle
import sys
from fractions import Fraction

import pytest

from compiled_dag import (
    ClassMethodNode,
    DAGNode,
    ElementNode,
    GraphError,
    GraphUsageError,
    InputNode,
    MultiOutputNode,
)
from compiled_dag.collective_node import bind_collective
from tests.graphs import paper


class Op:
    method = "allreduce"

    def __str__(self) -> str:
        return "sum"

    def only_gets(self, rank: int) -> bool:
        return False


@pytest.fixture
def worker():
    (worker,) = paper(1)
    return worker


def test_a_field_of_the_input_is_one_node_however_it_is_written() -> None:
    with InputNode() as inp:
        assert inp.rate is inp["rate"]
        assert inp[0] is inp[0]
        assert inp["0"] is not inp[0]


@pytest.mark.parametrize("key", [1.5, None, True, (0,)])
def test_a_field_is_named_by_an_int_or_a_str(key) -> None:
    with InputNode() as inp, pytest.raises(GraphUsageError, match=r"an int .* or a str"):
        inp[key]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(str, "str"), (Fraction, "fractions.Fraction"), (None, None), ({0: int}, None)],
)
def test_the_type_of_the_input_has_its_name(kind, name) -> None:
    with InputNode(input_type=kind) as inp:
        assert inp.get_result_type() == name


def test_the_types_of_fields_have_their_names() -> None:
    with InputNode(input_type={0: int, "rate": list[int], "at": Fraction, "or": int | str}) as inp:
        fields = (inp[0], inp.rate, inp["at"], inp["or"], inp[1])
    names = ["int", "list", "fractions.Fraction", "int | str", None]
    assert [field.get_result_type() for field in fields] == names
    with InputNode(input_type=str) as inp:
        assert inp[0].get_result_type() is None


def test_an_input_cannot_be_iterated() -> None:
    with InputNode() as inp, pytest.raises(TypeError, match="known at execute"):
        list(inp)


def test_an_input_takes_no_arguments() -> None:
    with pytest.raises(ValueError, match=r"takes no arguments, got 1, size=2"):
        InputNode(1, size=2)


@pytest.mark.parametrize("name", ["remote", "bind", "_secret"])
def test_an_input_has_no_methods_of_an_actor(name) -> None:
    with InputNode() as inp, pytest.raises(AttributeError, match=name):
        getattr(inp, name)


@pytest.mark.parametrize("outputs", ["node", {}, None])
def test_outputs_are_a_list_or_tuple(outputs) -> None:
    with pytest.raises(ValueError, match=f"not {type(outputs).__name__}"):
        MultiOutputNode(outputs)


def test_several_returns_are_one_node_each(worker) -> None:
    with InputNode() as inp:
        nodes = worker.divide.options(num_returns=2).bind(inp)
    assert isinstance(nodes, tuple)
    assert all(isinstance(node, ElementNode) for node in nodes)


def test_what_comes_from_a_method_is_a_class_method_node_as_in_ray() -> None:
    worker, other = paper(2)
    with InputNode() as inp:
        call = worker.echo.bind(inp)
        elements = worker.divide.options(num_returns=2).bind(inp)
        ranks = bind_collective(Op(), [[call, other.echo.bind(inp)]])
    for node in (call, *elements, *ranks):
        assert isinstance(node, ClassMethodNode)
    assert [node.get_method_name() for node in (call, ranks[0])] == ["echo", "allreduce"]
    assert [node.num_returns for node in (call, *elements, *ranks)] == [1, 2, 2, 1, 1]
    assert [node.is_class_method_output for node in (call, *elements, *ranks)] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert elements[1].class_method_call.get_method_name() == "divide"
    for no_method in (inp, MultiOutputNode([call])):
        assert not isinstance(no_method, ClassMethodNode)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("remote", r"\.execute\(\) runs the graph"),
        ("bind", r"pass it to another node's \.bind\(\)"),
    ],
)
def test_a_bound_method_is_not_bound_again(worker, name, text) -> None:
    with InputNode() as inp:
        call = worker.echo.bind(inp)
    for node in (call, *worker.divide.options(num_returns=2).bind(1), MultiOutputNode([call])):
        with pytest.raises(AttributeError, match=text):
            getattr(node, name)


def test_a_node_shows_its_method_and_line(worker) -> None:
    node = worker.echo.bind(1)
    assert repr(node).startswith("<ClassMethodNode Worker.echo bound at test_node.py:")


def test_a_node_remembers_the_line_that_made_it() -> None:
    line = sys._getframe().f_lineno + 1
    assert InputNode()._source == f"test_node.py:{line}"


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_copy_has_the_uuid_the_arguments_and_the_place_in_order(worker, copied) -> None:
    with InputNode() as inp:
        node = worker.pack.bind(inp, {"rate": inp}, 3)
    made = copied(node)
    assert made is not node
    assert made.get_stable_uuid() == node.get_stable_uuid()
    assert [each.get_stable_uuid() for each in made._upstream()] == [inp.get_stable_uuid()]
    assert (made._order, made._source) == (node._order, node._source)


def test_a_pickled_node_takes_along_what_it_needs_and_leaves_the_others(worker) -> None:
    with InputNode() as inp:
        needed, other = worker.echo.bind(inp.a), worker.echo.bind(inp.b)
        node = worker.join.bind(needed)
        MultiOutputNode([node, other])
    (arrived,) = pickle.loads(pickle.dumps(node))._upstream()
    (field,) = arrived._upstream()
    (arrived_input,) = field._upstream()
    assert arrived_input.a is field
    assert [each._downstream for each in (arrived_input, field)] == [[field], [arrived]]


def test_a_node_bound_here_comes_after_those_that_arrived(worker) -> None:
    node = worker.echo.bind(1)
    node._order += 1000  # as from a process that has bound more
    pickle.loads(pickle.dumps(node))
    assert worker.echo.bind(1)._order > node._order


def test_nodes_are_found_in_lists_tuples_dicts_and_keywords(worker) -> None:
    with InputNode() as inp:
        parts = [worker.echo.bind(inp) for _ in range(4)]
    node = worker.pack.bind([parts[0]], ({"key": parts[1]},), parts[0], a=parts[2], b=[parts[3]])
    assert node._upstream() == parts


def test_binding_changes_none_of_the_bound_objects(worker) -> None:
    with InputNode() as inp:
        argument = [inp, {"x": inp}]
        worker.pack.bind(argument)
    assert argument == [inp, {"x": inp}]


# --- collectives ----------------------------------------------------------------------------------


def test_a_collective_gives_one_node_per_rank_on_that_ranks_actor() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        nodes = bind_collective(Op(), [[first.grad.bind(inp), second.grad.bind(inp)]])
    assert all(isinstance(node, DAGNode) for node in nodes)
    assert [node._label for node in nodes] == ["sum, rank 0", "sum, rank 1"]


def test_a_node_of_a_collective_has_the_operation_and_that_its_actors() -> None:
    workers = paper(2)
    with InputNode() as inp:
        nodes = bind_collective(Op(), [[worker.grad.bind(inp) for worker in workers]])
    operation = nodes[0].collective_op
    assert operation is nodes[1].collective_op
    assert operation.actor_handles == workers
    assert str(operation) == "sum of Worker(1), Worker(2)"


def test_a_collective_needs_inputs() -> None:
    with pytest.raises(GraphError, match="^sum: the list of inputs is empty"):
        bind_collective(Op(), [[]])


@pytest.mark.parametrize("bad", [3, None, "node"])
def test_an_input_of_a_collective_is_a_node(worker, bad) -> None:
    with pytest.raises(GraphError, match=r"^sum: input 1 \(.*\) is not a method of an actor"):
        bind_collective(Op(), [[worker.grad.bind(1), bad]])


def test_the_graphs_input_is_on_no_actor() -> None:
    with InputNode() as inp, pytest.raises(GraphError, match="input 0 .* is not a method"):
        bind_collective(Op(), [[inp]])


def test_two_inputs_of_a_collective_on_one_actor_are_refused_by_position(worker) -> None:
    with pytest.raises(GraphError, match=r"inputs 0 and 1 are both on actor Worker\(1\)"):
        bind_collective(Op(), [[worker.grad.bind(1), worker.grad.bind(2)]])


def test_a_collective_may_follow_a_collective_and_an_element() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        tens, _ = first.divide.options(num_returns=2).bind(inp)
        once = bind_collective(Op(), [[tens, second.grad.bind(inp)]])
    assert len(bind_collective(Op(), [once])) == 2
