from __future__ import annotations

import re
import sys
import types

import pytest

from compiled_dag import GraphUsageError, InputNode, MultiOutputNode, plot
from compiled_dag.picture.plot import plot_dot
from tests.graphs import data_parallel, paper


def parts(output):
    text = plot_dot(output)
    nodes = re.findall(r'^  "([^"]+)"$', text, re.MULTILINE)
    edges = re.findall(r'^  "([^"]+)" -> "([^"]+)"$', text, re.MULTILINE)
    return nodes, edges


def branched():
    first, second = paper(2)
    with InputNode() as inp:
        left, right = first.add.bind(inp[0]), second.add.bind(inp.scale)
        return MultiOutputNode([second.join.bind(left, [right]), first.echo.bind(left)])


def test_nodes_are_called_by_their_methods_and_repeats_are_numbered() -> None:
    nodes, edges = parts(branched())
    assert {"add", "add_1", "join", "echo"} <= set(nodes)
    assert ("add", "join") in edges
    assert ("add_1", "join") in edges
    assert ("add", "echo") in edges
    assert ("INPUT_NODE", "INPUT_ATTRIBUTE_NODE_0") in edges


def test_a_name_given_as_an_option_is_used() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.add.bind(inp)
    node._bound_options["name"] = "scale"
    assert parts(node) == (["INPUT_NODE", "scale"], [("INPUT_NODE", "scale")])


def test_collectives_are_drawn_though_they_exist_only_compiled() -> None:
    nodes, _ = parts(data_parallel(paper(2)))
    assert {"allreduce(AVG), rank 0", "allreduce(AVG), rank 1"} <= set(nodes)


@pytest.mark.parametrize(
    ("name", "start"), [("drawn.png", b"\x89PNG"), ("drawn.svg", b"<?xml"), ("drawn", b"\x89PNG")]
)
def test_the_extension_decides_the_format(graphviz, tmp_path, name, start) -> None:
    assert plot(branched(), str(tmp_path / name)) is None
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_notebook_gets_an_image(graphviz, monkeypatch, tmp_path) -> None:
    shown = types.SimpleNamespace(
        Image=lambda data, **given: ("image", data[:4], given), SVG=lambda data: ("svg", data[:5])
    )
    python = types.ModuleType("IPython")
    python.get_ipython = object
    python.display = shown
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.chdir(tmp_path)
    assert plot(branched()) == ("image", b"\x89PNG", {"format": "png"})
    assert plot(branched(), "drawn.svg") == ("svg", b"<?xml")
    assert plot(branched(), "drawn.pdf") is None
    assert {path.name for path in tmp_path.iterdir()} == {"drawn.svg", "drawn.pdf"}


def test_an_unknown_format_is_refused(graphviz, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"drawn\.nothing'.* no format 'nothing'"):
        plot(branched(), tmp_path / "drawn.nothing")


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match="pip install graphviz"):
        plot(branched())


def test_only_nodes_are_drawn() -> None:
    with pytest.raises(GraphUsageError, match="not int"):
        plot(3)
