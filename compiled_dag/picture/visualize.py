"""One graph in any format."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from compiled_dag.links import links
from compiled_dag.picture.ascii import ascii_text
from compiled_dag.picture.dot import dot_text, render
from compiled_dag.picture.drawing import drawing_of
from compiled_dag.picture.mermaid import mermaid_text
from compiled_dag.picture.svg import svg_text

if TYPE_CHECKING:
    from compiled_dag.ir import Graph
    from compiled_dag.program import Program


def svg(graph: Graph, program: Program) -> str:
    """Return a picture that needs no other program, for notebooks."""
    return svg_text(drawing_of(graph, links(graph, program)))


def visualize(
    graph: Graph,
    program: Program,
    filename: str = "compiled_graph",
    picture_format: str = "png",
    *,
    view: bool = False,
    channel_details: bool = False,
) -> str:
    """Return the text of a picture of `graph`; write files where Graphviz draws it.

    Raises:
        ValueError: Details are asked for in ASCII, or there is no such format.
        ImportError: Graphviz is needed and missing.
    """
    drawing = drawing_of(graph, links(graph, program))
    if picture_format == "ascii":
        if channel_details:
            msg = (
                "channel_details=True does not go with format='ascii': use format='mermaid' or a "
                "format of Graphviz, or read CompiledDAG.explain()"
            )
            raise ValueError(msg)
        text = ascii_text(drawing)
    elif picture_format == "mermaid":
        text = mermaid_text(drawing, details=channel_details)
    else:
        text = dot_text(drawing, details=channel_details)
        render(text, filename, picture_format, view=view)
        return text
    if view:
        sys.stdout.write(text + "\n")
    return text
