"""`plot`: a picture of a graph as it was drawn, compiled or not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compiled_dag import walk
from compiled_dag.errors import GraphUsageError
from compiled_dag.input_node import InputAttributeNode, InputNode
from compiled_dag.keywords import strict_keywords
from compiled_dag.node import DAGNode
from compiled_dag.output_node import MultiOutputNode
from compiled_dag.picture.dot import FORMATS, quoted, require_graphviz

if TYPE_CHECKING:
    import os

_DEFAULT_FORMAT: Final = "png"
_SHOWN: Final = ("png", "jpg", "jpeg", "gif", "svg")
"""What notebooks show in place."""


@strict_keywords
def plot(dag: DAGNode, to_file: str | os.PathLike[str] | None = None) -> Any:
    """Draw the graph that ends in `dag`, which need not be compiled.

    A node is called by its option ``name``, or else by its method, function or class; a name that
    occurs again gets ``_1``, ``_2`` and so on.

    Args:
        dag: The last node.
        to_file: Where to write the picture; its extension is the format, without one it is PNG.
            None writes no file: the picture is only for a notebook.

    Returns:
        In a notebook, an image that it shows; elsewhere None.

    Raises:
        ImportError: The package graphviz, or its program ``dot``, is missing.
        ValueError: Graphviz knows no format of that name.
        GraphUsageError: `dag` is no node.
    """
    if not isinstance(dag, DAGNode):
        msg = f"plot takes the last node of a graph, not {type(dag).__name__}"
        raise GraphUsageError(msg)
    path = None if to_file is None else Path(to_file)
    picture_format = path.suffix[1:].lower() if path is not None else ""
    picture_format = picture_format or _DEFAULT_FORMAT
    if picture_format not in FORMATS:
        msg = f"to_file={str(to_file)!r}: Graphviz knows no format {picture_format!r}"
        raise ValueError(msg)
    graphviz = require_graphviz()
    data: bytes = graphviz.Source(plot_dot(dag), format=picture_format).pipe()
    if path is not None:
        path.write_bytes(data)
    return _image(data, picture_format)


def plot_dot(dag: DAGNode) -> str:
    """Return the graph that ends in `dag` as DOT text."""
    nodes = walk.needed(dag)
    names = _names(nodes)
    lines = ["digraph graph_of_nodes {", "  rankdir=LR", "  node [fontname=monospace]"]
    lines += [f"  {quoted(name)}" for name in names.values()]
    lines += [
        f"  {quoted(names[other._stable_uuid])} -> {quoted(names[node._stable_uuid])}"
        for node in nodes
        for other in node._upstream()
    ]
    return "\n".join([*lines, "}", ""])


def _names(nodes: list[DAGNode]) -> dict[str, str]:
    """Return the name of every node, by uuid, no two alike."""
    seen: Counter[str] = Counter()
    names = {}
    for node in nodes:
        name = _name(node)
        names[node._stable_uuid] = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
    return names


def _name(node: DAGNode) -> str:
    given = node._bound_options.get("name")
    if given:
        return str(given)
    match node:
        case InputNode():
            return "INPUT_NODE"
        case InputAttributeNode():
            return f"INPUT_ATTRIBUTE_NODE_{node._key}"
        case MultiOutputNode():
            return "MultiOutputNode"
    return node._label.rsplit(".", 1)[-1]


def _image(data: bytes, picture_format: str) -> Any:
    """Return `data` as what a notebook shows, if this is one."""
    python = sys.modules.get("IPython")
    if python is None or python.get_ipython() is None or picture_format not in _SHOWN:
        return None
    from IPython import display  # noqa: PLC0415  it runs us

    if picture_format == "svg":
        return display.SVG(data)
    return display.Image(data, format=picture_format)
