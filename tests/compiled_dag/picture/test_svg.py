from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from compiled_dag.picture.svg import svg_text
from tests.compiled_dag.picture.drawings import drawing, sample
from tests.graphs import SAMPLES, paper
from tests.recipes import Machine, draw, recipes

_SVG = "{http://www.w3.org/2000/svg}"


def boxes(picture):
    """Return the rectangles of the nodes."""
    _, *rects = picture.iter(f"{_SVG}rect")  # the first is the ground
    return [tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
            for rect in rects]  # fmt: skip


def apart(one, other):
    (x, y, width, height), (x2, y2, width2, height2) = one, other
    return x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y


@settings(max_examples=30)
@given(recipes(collectives=True))
def test_every_node_has_a_box_of_its_own_and_every_edge_a_line(recipe) -> None:
    drawn = drawing(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    picture = ET.fromstring(svg_text(drawn))
    found = boxes(picture)
    assert len(found) == len(drawn.vertices)
    assert all(apart(a, b) for n, a in enumerate(found) for b in found[:n])
    width, height = float(picture.get("width")), float(picture.get("height"))
    assert min(min(x, y) for x, y, _, _ in found) >= 0
    assert all(x + w <= width and y + h <= height for x, y, w, h in found)
    lines = [path for path in picture.iter(f"{_SVG}path") if path.get("marker-end")]
    assert len(lines) == len(drawn.arrows) + len(drawn.fields)


@pytest.mark.parametrize("name", SAMPLES)
def test_boxes_say_number_actor_and_method(name) -> None:
    drawn = sample(name)
    texts = [
        "".join(text.itertext()) for text in ET.fromstring(svg_text(drawn)).iter(f"{_SVG}text")
    ]
    assert sorted(texts) == sorted("".join(vertex.lines) for vertex in drawn.vertices)
