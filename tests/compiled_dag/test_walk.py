from __future__ import annotations

import pytest

from compiled_dag import DAGNode, GraphError, InputNode, MultiOutputNode
from tests.graphs import diamond, paper
from tests.runtime.drawn import Box, Counter, add


def test_a_function_is_applied_bottom_up_once_per_uuid_to_copies() -> None:
    seen = []

    def note(node: DAGNode) -> str:
        seen.append(node)
        return node.get_stable_uuid()

    output = diamond(paper(4))
    before = output.get_args()
    assert output.apply_recursive(note) == output.get_stable_uuid()
    assert [node._label for node in seen] == ["input", *["Worker.add"] * 3, "Worker.join"]
    assert seen[-1].get_args() == (seen[2].get_stable_uuid(), seen[3].get_stable_uuid())
    assert output.get_args() == before
    assert all(isinstance(node, DAGNode) for node in before)


def test_results_replace_nodes_wherever_they_are() -> None:
    counter = Counter.bind(3)
    one = counter.add.bind(1)
    node = add.bind({"x": [one]}, y=Box((one, counter)))

    def number(node: DAGNode) -> int:
        copies[node.get_stable_uuid()] = node
        return len(copies)

    copies: dict[str, DAGNode] = {}
    assert node.apply_recursive(number) == 3
    copy = copies[node.get_stable_uuid()]
    assert copy.get_args() == ({"x": [2]},)
    assert copy.get_kwargs()["y"].content == (2, 1)
    assert copies[one.get_stable_uuid()].get_other_args_to_resolve()["parent_class_node"] == 1
    assert node.get_kwargs()["y"].content == (one, counter)


def test_a_deep_graph_is_walked_without_recursion() -> None:
    node = add.bind(0, 0)
    for _ in range(3000):
        node = add.bind(node, 1)
    values = []
    assert node.apply_recursive(lambda each: values.append(each) or len(values)) == 3001


def test_nodes_that_fit_are_replaced_in_any_object_and_others_stay() -> None:
    counter, one = Counter.bind(), add.bind(1, 2)
    source = [counter, {"k": one}, Box(one), 5]
    made = []

    def make(node: DAGNode) -> str:
        made.append(node)
        return "made"

    found = one.apply_functional(source, lambda node: node is one, make)
    assert (found[:2], found[2].content, found[3]) == ([counter, {"k": "made"}], "made", 5)
    assert made == [one]


def test_every_connected_node_is_visited_once_the_nearest_first() -> None:
    with InputNode() as inp:
        left, right = add.bind(inp, 1), add.bind(inp, 2)
        output = MultiOutputNode([left, right])
        leaf = add.bind(right, 3)
    seen: list[DAGNode] = []
    output.traverse_and_apply(seen.append)
    assert seen[0] is output
    assert {id(node) for node in seen} == {id(node) for node in (inp, left, right, output, leaf)}
    assert len(seen) == 5
    assert seen.index(leaf) > seen.index(left)


def test_arguments_changed_into_a_cycle_are_refused() -> None:
    argument: list[DAGNode] = []
    first = add.bind(argument, 1)
    argument.append(add.bind(first, 1))
    with pytest.raises(GraphError, match=r"<FunctionNode add .* needs <.*, which was bound later"):
        first.apply_recursive(lambda node: node)
    with pytest.raises(GraphError, match="bound later"):
        first.execute()
