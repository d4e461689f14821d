from __future__ import annotations

import pickle

import pytest

from compiled_dag.capture import capture
from compiled_dag.ir import Call, Collective, Element, Input, Node, NodeId, OperationId
from compiled_dag.tree import Arguments, ListOf, Val
from tests.graphs import SAMPLES, paper

CALL = Call(method="f", arguments=Arguments((ListOf((Val(2), Val(1))),), (("k", Val(2)),)))


def node(op, source="script.py:7") -> Node:
    return Node(id=NodeId(4), actor=1, op=op, order=0, label="Worker.f", source=source)


@pytest.mark.parametrize(
    ("op", "text", "uses"),
    [
        (Input(), "v4 = input", ()),
        (Input(key=0), "v4 = input[0]", ()),
        (Input(key="rate"), "v4 = input['rate']", ()),
        (CALL, "v4 = f([v2, v1], k=v2)", (2, 1)),
        (Element(source=NodeId(3), index=1), "v4 = v3[1]", (3,)),
        (
            Collective(operation=OperationId(0), rank=1, sources=(NodeId(3),)),
            "v4 = op0.rank1(v3)",
            (3,),
        ),
    ],
)
def test_a_node_prints_what_it_does_and_knows_what_it_uses(op, text, uses) -> None:
    assert str(node(op)) == text
    assert node(op).uses() == uses


def test_messages_call_a_node_by_method_number_and_line() -> None:
    assert node(CALL).describe() == "Worker.f (node 4, bound at script.py:7)"
    assert node(CALL, source="").describe() == "Worker.f (node 4)"


def test_where_a_node_was_bound_is_no_part_of_what_it_is() -> None:
    assert node(CALL, "a.py:1") == node(CALL, "b.py:2")


def test_a_graph_prints_a_node_a_line() -> None:
    build, num_actors = SAMPLES["diamond"]
    graph = capture(build(paper(num_actors))).graph
    assert str(graph).splitlines() == [
        "v0 = input",
        "v1 = add(v0)",
        "v2 = add(v1)",
        "v3 = add(v1)",
        "v4 = join(v2, v3)",
        "v5 = output(v4)",
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_graph_can_be_sent(name) -> None:
    build, num_actors = SAMPLES[name]
    graph = capture(build(paper(num_actors))).graph
    assert pickle.loads(pickle.dumps(graph)) == graph
