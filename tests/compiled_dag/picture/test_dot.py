from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings

from compiled_dag.picture.dot import FORMATS, dot_text, quoted, render
from compiled_dag.picture.drawing import Arrow, Drawing, Vertex
from tests.compiled_dag.picture.drawings import drawing, pairs, sample
from tests.graphs import paper
from tests.recipes import Machine, draw, recipes


@settings(max_examples=25)
@given(recipes(collectives=True))
def test_nodes_are_called_by_their_numbers_and_all_edges_are_there(recipe) -> None:
    drawn = drawing(draw(recipe, paper(recipe.num_actors, kind=Machine)))
    text = dot_text(drawn)
    numbers = re.findall(r"^  (\d+) \[label=", text, re.MULTILINE)
    assert list(map(int, numbers)) == list(range(len(drawn.vertices)))
    edges = re.findall(r"^  (\d+) -> (\d+)", text, re.MULTILINE)
    assert {(int(source), int(target)) for source, target in edges} == pairs(drawn)


def test_details_say_on_every_edge_how_its_value_travels() -> None:
    text = dot_text(sample("nested"), details=True)
    assert '3 -> 6 [label="shm, channel 2"' in text
    assert '4 -> 6 [label="local"' in text
    assert "label" not in dot_text(sample("nested")).split("0 -> 1")[1]


def test_actors_have_colours_of_their_own() -> None:
    text = dot_text(sample("fan_out_4"))
    colours = re.findall(r'Worker\(\d\).*fillcolor="(#[0-9a-f]{6})"', text)
    assert len(colours) == len(set(colours)) == 4


def test_an_edge_that_stays_on_accelerators_is_thick() -> None:
    vertices = tuple(Vertex(number=n, kind="call", what="", short="") for n in range(2))
    arrow = Arrow(source=0, target=1, accelerator=True)
    drawn = Drawing(vertices=vertices, arrows=(arrow,), fields=())
    assert re.search(r"0 -> 1 \[color=.*penwidth=2\]", dot_text(drawn))


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "two\nlines", "<b>&"])
def test_any_text_is_a_string_of_dot(graphviz, text) -> None:
    source = f"digraph {{ 1 [label={quoted(text)}] }}"
    shown = graphviz.Source(source, format="svg").pipe(encoding="utf-8")
    drawn = re.findall(r"<text.*?>(.*?)</text>", shown)
    plain = [line.replace("&quot;", '"').replace("&#45;", "-") for line in drawn]
    expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert plain == expected.split("\n")


def test_files_are_written(graphviz, tmp_path) -> None:
    source = dot_text(sample("diamond"))
    render(source, str(tmp_path / "drawn"), "png")
    assert (tmp_path / "drawn").read_text() == source
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", ["picture", "", None])
def test_an_unknown_format_is_refused_by_name_with_the_package_and_without(
    monkeypatch, tmp_path, wrong
) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ValueError, match=f"format={wrong!r}: use 'ascii', 'mermaid', or a format"):
        render("digraph {}", str(tmp_path / "drawn"), wrong)
    assert not list(tmp_path.iterdir())


def test_all_formats_of_the_package_are_known() -> None:
    package = pytest.importorskip("graphviz", reason="the package graphviz is not installed")
    assert package.FORMATS <= FORMATS


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match=r"pip install graphviz, or compiled-dag\[viz\]"):
        render("digraph {}", str(tmp_path / "drawn"), "png")


def test_a_missing_program_is_named_with_how_to_install_it(monkeypatch, tmp_path) -> None:
    pytest.importorskip("graphviz", reason="the package graphviz is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportError, match=r"`dot`, which is not on PATH: .*apt install graphviz"):
        render("digraph {}", str(tmp_path / "drawn"), "png")
    assert not list(tmp_path.iterdir())
