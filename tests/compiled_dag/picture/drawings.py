"""Drawings of graphs on paper."""

from __future__ import annotations

from compiled_dag.capture import capture
from compiled_dag.compiler import compile_graph
from compiled_dag.links import links
from compiled_dag.node import DAGNode
from compiled_dag.options import CompileOptions
from compiled_dag.picture.drawing import Drawing, drawing_of
from tests.graphs import SAMPLES, paper


def drawing(output: DAGNode) -> Drawing:
    """Return what there is to draw of the graph that ends in `output`."""
    graph = capture(output).graph
    return drawing_of(graph, links(graph, compile_graph(graph, CompileOptions())))


def sample(name: str) -> Drawing:
    """Return the drawing of a sample graph."""
    build, num_actors = SAMPLES[name]
    return drawing(build(paper(num_actors)))


def pairs(of: Drawing) -> set[tuple[int, int]]:
    """Return all arrows, by the numbers of their ends."""
    return {(arrow.source, arrow.target) for arrow in (*of.fields, *of.arrows)}
