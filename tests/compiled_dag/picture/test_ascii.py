from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.picture.ascii import ascii_text, picture
from compiled_dag.picture.drawing import Arrow, Drawing, Vertex
from compiled_dag.picture.mermaid import mermaid_text
from tests.compiled_dag.picture.drawings import drawing, pairs, sample
from tests.compiled_dag.picture.test_layers import acyclic
from tests.graphs import SAMPLES, paper
from tests.recipes import Machine, draw, recipes

# --- what scripts read ----------------------------------------------------------------------------


def sections(text):
    """Split the text as scripts do."""
    found = {}
    for block in text.split("\n\n"):
        head, *lines = block.split("\n")
        found[head] = lines
    return found


def test_nodes_edges_legend_and_picture_are_sections() -> None:
    found = sections(ascii_text(sample("nested")))
    assert list(found) == ["Nodes Information:", "Edges Information:", "Legend:", "Graph:"]
    assert found["Nodes Information:"] == [
        '0 [label="Task 0  InputNode"]',
        '1 [label="Task 1  InputAttributeNode[0]"]',
        '2 [label="Task 2  InputAttributeNode[scale]"]',
        '3 [label="Task 3  Actor: Worker(1) Method: add"]',
        '4 [label="Task 4  Actor: Worker(2) Method: add"]',
        '5 [label="Task 5  MultiOutputNode"]',
        '6 [label="Task 6  Actor: Worker(2) Method: pack"]',
        '7 [label="Task 7  Actor: Worker(1) Method: echo"]',
    ]
    assert found["Edges Information:"] == [
        "1 ---> 3",
        "2 ---> 4",
        "6 ---> 5",
        "7 ---> 5",
        "2 ---> 5",
        "3 ---> 6",
        "4 ---> 6",
    ]
    assert [line.split(" : ")[0] for line in found["Legend:"]] == ["+++>", "--->"]


def test_elements_and_ranks_are_nodes() -> None:
    nodes = sections(ascii_text(sample("multi_return")))["Nodes Information:"]
    assert nodes[1:4] == [
        '1 [label="Task 1  Actor: Worker(1) Method: divide"]',
        '2 [label="Task 2  ClassMethodOutputNode[0]"]',
        '3 [label="Task 3  ClassMethodOutputNode[1]"]',
    ]
    nodes = sections(ascii_text(sample("data_parallel_2")))["Nodes Information:"]
    assert nodes[3] == '3 [label="Task 3  Actor: Worker(1) Method: allreduce(AVG), rank 0"]'


def test_an_edge_that_stays_on_accelerators_is_marked() -> None:
    vertices = tuple(
        Vertex(number=n, kind="call", what=f"node {n}", short=f"{n}:node") for n in range(2)
    )
    arrow = Arrow(source=0, target=1, accelerator=True)
    text = ascii_text(Drawing(vertices=vertices, arrows=(arrow,), fields=()))
    assert sections(text)["Edges Information:"] == ["0 +++> 1"]


def test_a_hint_for_an_accelerator_is_marked_by_its_edges() -> None:
    actors = paper(3)
    for actor in actors[:2]:
        actor.num_gpus = 1.0
    with InputNode() as inp:
        value = actors[0].add.bind(inp).with_tensor_transport("accelerator")
        output = MultiOutputNode([actors[1].add.bind(value), actors[2].add.bind(inp)])
    edges = sections(ascii_text(drawing(output)))["Edges Information:"]
    assert edges == ["0 ---> 1", "0 ---> 2", "1 +++> 3", "3 ---> 4", "2 ---> 4"]
    (arrow,) = [arrow for arrow in drawing(output).arrows if arrow.accelerator]
    assert arrow.note == "fake, channel 1"
    assert "  n1 ==> n3" in mermaid_text(drawing(output))


@settings(max_examples=25)
@given(recipes(collectives=True))
def test_any_graph_is_listed_in_the_form_that_scripts_read(recipe) -> None:
    drawn = drawing(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    found = sections(ascii_text(drawn))
    numbers = [re.match(r'^(\d+) \[label="Task (\d+)  .+"\]$', line)
               for line in found["Nodes Information:"]]  # fmt: skip
    assert [int(m[1]) for m in numbers] == [int(m[2]) for m in numbers]
    assert [int(m[1]) for m in numbers] == list(range(len(drawn.vertices)))
    edges = [re.match(r"^(\d+) (--->|\+\+\+>) (\d+)$", line)
             for line in found["Edges Information:"]]  # fmt: skip
    assert {(int(m[1]), int(m[3])) for m in edges} == {(a.source, a.target) for a in drawn.arrows}


# --- the picture ----------------------------------------------------------------------------------

DIAMOND = """\
0:InputNode
v
1:Worker(1).add
+-------------------.
v                   v
2:Worker(2).add     3:Worker(3).add
.-------------------+
v
4:Worker(4).join
v
5:MultiOutputNode"""

MULTI_RETURN = """\
0:InputNode
v
1:Worker(1).divide
+---------------.
v               v
2:Output[0]     3:Output[1]
+---------------|---.
|               +---.
v                   v
5:Worker(1).add     4:Worker(2).join
.-------------------+
v
6:MultiOutputNode"""


@pytest.mark.parametrize(("name", "text"), [("diamond", DIAMOND), ("multi_return", MULTI_RETURN)])
def test_a_small_graph_looks_as_one_would_draw_it(name, text) -> None:
    assert "\n".join(picture(sample(name))) == text


def reads(lines, labels):
    """Follow the lines of a picture with the eye; returns the arrows that are seen."""
    where = {}
    for row, line in enumerate(lines):
        for number, label in labels.items():
            for match in re.finditer(rf"(?<!\S){re.escape(label)}(?!\S)", line):
                where[number] = (row, match.start())
    assert set(where) == set(labels)
    names = {
        (row, column): number
        for number, (row, start) in where.items()
        for column in range(start, start + len(labels[number]))
    }
    return {(number, end) for number, (row, column) in where.items()
            for end in follow(lines, names, row + 1, column)}  # fmt: skip


def follow(lines, names, row, column):
    """Yield the nodes at the ends of the line that goes down at a place."""
    todo, seen = [(row, column, "down")], set()
    while todo:
        step = row, column, way = todo.pop()
        if step in seen:
            continue
        seen.add(step)
        char = lines[row][column : column + 1] if row < len(lines) else ""
        left, right = (row, column - 1, "left"), (row, column + 1, "right")
        down = (row + 1, column, "down")
        match char, way:
            case ("v", _):
                yield names[row + 1, column]
            case ("|" | ".", "down"):
                todo.append(down)
            case ("+", "down"):
                todo += [place for place in (left, right, down) if joined(lines, place)]
            case ("-" | "|", "left" | "right"):
                todo.append(left if way == "left" else right)
            case ("." | "+", "left" | "right"):
                todo += [place for place in (left if way == "left" else right, down)
                         if joined(lines, place)]  # fmt: skip
            case _:
                # Below a node that nobody needs there is no line; a line never ends elsewhere.
                assert (way, len(seen)) == ("down", 1), (step, char)


def joined(lines, place):
    row, column, way = place
    char = lines[row][column : column + 1] if column >= 0 and row < len(lines) else ""
    return char in (("|", ".", "v", "+") if way == "down" else ("-", "+", "."))


def seen(drawn):
    return reads(picture(drawn), {v.number: v.short for v in drawn.vertices})


@pytest.mark.parametrize("name", SAMPLES)
def test_the_eye_finds_every_edge_of_a_sample_and_no_other(name) -> None:
    assert seen(sample(name)) == pairs(sample(name))


@settings(max_examples=100)
@given(acyclic())
def test_the_eye_finds_every_edge_of_any_graph_and_no_other(graph) -> None:
    num_nodes, arrows = graph
    vertices = tuple(
        Vertex(number=n, kind="call", what="", short=f"{n}:node{'x' * (n % 5)}")
        for n in range(num_nodes)
    )
    drawn = Drawing(
        vertices=vertices,
        arrows=tuple(Arrow(source=source, target=target) for source, target in arrows),
        fields=(),
    )
    assert seen(drawn) == set(arrows)


@settings(max_examples=25)
@given(recipes(collectives=True))
def test_the_eye_finds_every_edge_of_any_graph_of_calls(recipe) -> None:
    drawn = drawing(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    assert seen(drawn) == pairs(drawn)
