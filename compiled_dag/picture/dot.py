"""A graph as DOT text, and files that Graphviz makes of it.

The text is made here. Only pictures need the package ``graphviz`` and its program ``dot``.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.picture.colours import FILL, colours_of

if TYPE_CHECKING:
    from compiled_dag.picture.drawing import Drawing

_SHAPES: Final = {
    "input": "box",
    "output": "box",
    "call": "oval",
    "element": "box",
    "collective": "hexagon",
}

_NAMES: Final = """
bmp canon cgimage cmap cmapx cmapx_np dot dot_json eps exr fig gd gd2 gif gtk gv ico imap imap_np
ismap jp2 jpe jpeg jpg json json0 pct pdf pic pict plain plain-ext png pov ps ps2 psd sgi svg
svg_inline svgz tga tif tiff tk vml vmlz vrml wbmp webp x11 xdot xdot1.2 xdot1.4 xdot_json xlib
"""
FORMATS: Final = frozenset(_NAMES.split())
"""Of Graphviz: what is asked for is looked at before the package is."""


def dot_text(drawing: Drawing, *, details: bool = False) -> str:
    """Return the graph; nodes are called by their numbers.

    Args:
        drawing: What to draw.
        details: Whether edges say how values travel.
    """
    colours = colours_of(drawing.actors)
    lines = ["digraph compiled_graph {", "  node [style=filled, fontname=monospace]"]
    for vertex in drawing.vertices:
        fill = colours.get(vertex.actor, FILL[vertex.kind])
        label = "\\n".join(map(_escaped, vertex.lines))
        lines.append(
            f'  {vertex.number} [label="{label}", shape={_SHAPES[vertex.kind]}, fillcolor="{fill}"]'
        )
    lines += [f"  {arrow.source} -> {arrow.target} [style=dashed]" for arrow in drawing.fields]
    for arrow in drawing.arrows:
        style = []
        if arrow.accelerator:
            style.append('color="#1f5fbf", penwidth=2')
        if details:
            style.append(f'label="{_escaped(arrow.note)}", fontname=monospace, fontsize=10')
        attributes = f" [{', '.join(style)}]" if style else ""
        lines.append(f"  {arrow.source} -> {arrow.target}{attributes}")
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    """Return `text` as a DOT string."""
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(source: str, filename: str, picture_format: str, *, view: bool = False) -> None:
    """Write `filename` (the DOT text) and ``filename.<format>``, and open that if `view`.

    Raises:
        ImportError: The package, or the program, is missing; says how to install it.
        ValueError: Graphviz knows no such format.
    """
    if str(picture_format).lower() not in FORMATS:  # None too
        msg = (
            f"format={picture_format!r}: use 'ascii', 'mermaid', or a format of Graphviz such as "
            "'png', 'svg', 'pdf'"
        )
        raise ValueError(msg)
    graphviz = require_graphviz()
    graphviz.Source(source, filename=filename, format=picture_format).render(view=view)


def require_graphviz() -> Any:
    """Return the module ``graphviz`` after checking that it can work.

    Raises:
        ImportError: The package, or the program, is missing; says how to install it.
    """
    otherwise = "format='ascii' and format='mermaid' need nothing"
    try:
        import graphviz  # noqa: PLC0415  an extra
    except ImportError as error:
        msg = (
            "pictures need the package graphviz: pip install graphviz, or "
            f"compiled-dag[viz]. {otherwise}"
        )
        raise ImportError(msg) from error
    if shutil.which("dot") is None:
        msg = (
            "pictures need Graphviz' program `dot`, which is not on PATH: install the system's "
            f"package graphviz (apt install graphviz, say). {otherwise}"
        )
        raise ImportError(msg)
    return graphviz
