from __future__ import annotations

import re

from hypothesis import given, settings

from compiled_dag.picture.drawing import Arrow, Drawing, Vertex
from compiled_dag.picture.mermaid import mermaid_text
from tests.compiled_dag.picture.drawings import drawing, pairs, sample
from tests.graphs import paper
from tests.recipes import Machine, draw, recipes


def test_a_frame_holds_what_an_actor_does() -> None:
    assert mermaid_text(sample("data_parallel_2"), details=True).splitlines() == [
        "flowchart TD",
        r'  n0[/"0:InputNode"/]',
        r'  n7[\"7:MultiOutputNode"\]',
        '  subgraph actor0["Worker(1)"]',
        '    n1("1: grad")',
        '    n3{{"3: allreduce(AVG)"}}',
        '    n5("5: step")',
        "  end",
        '  subgraph actor1["Worker(2)"]',
        '    n2("2: grad")',
        '    n4{{"4: allreduce(AVG)"}}',
        '    n6("6: step")',
        "  end",
        '  n0 -->|"shm, channel 0"| n1',
        '  n0 -->|"shm, channel 0"| n2',
        '  n1 -->|"local"| n3',
        '  n2 -->|"local"| n4',
        '  n3 -->|"local"| n5',
        '  n4 -->|"local"| n6',
        '  n5 -->|"shm, channel 1"| n7',
        '  n6 -->|"shm, channel 2"| n7',
    ]


@settings(max_examples=25)
@given(recipes(collectives=True))
def test_every_node_and_edge_is_there(recipe) -> None:
    drawn = drawing(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    text = mermaid_text(drawn)
    nodes = re.findall(r"^ +n(\d+)[\[({]", text, re.MULTILINE)
    assert sorted(map(int, nodes)) == list(range(len(drawn.vertices)))
    edges = re.findall(r"^  n(\d+) -(?:->|\.-) n(\d+)$", text, re.MULTILINE)
    assert {(int(source), int(target)) for source, target in edges} == pairs(drawn)


def test_what_would_be_syntax_is_escaped_and_accelerators_have_thick_lines() -> None:
    vertices = tuple(Vertex(number=n, kind="input", what="", short='a"|<b') for n in range(2))
    arrow = Arrow(source=0, target=1, accelerator=True)
    text = mermaid_text(Drawing(vertices=vertices, arrows=(arrow,), fields=()))
    assert r'n0[/"a#34;#124;#60;b"/]' in text
    assert "n0 ==> n1" in text
