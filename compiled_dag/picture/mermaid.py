"""A graph as Mermaid text, which GitHub, GitLab and notebooks draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from compiled_dag.picture.drawing import Drawing, Vertex

_SHAPES: Final = {
    "input": ("[/", "/]"),
    "output": ("[\\", "\\]"),
    "call": ("(", ")"),
    "element": ("[", "]"),
    "collective": ("{{", "}}"),
}


def mermaid_text(drawing: Drawing, *, details: bool = False) -> str:
    """Return a flow chart: a frame per actor, a thick arrow where values stay on accelerators.

    Args:
        drawing: What to draw.
        details: Whether arrows say how values travel.
    """
    lines = ["flowchart TD"]
    lines += [f"  {_vertex(v)}" for v in drawing.vertices if not v.actor]
    for number, actor in enumerate(drawing.actors):
        lines.append(f'  subgraph actor{number}["{_escaped(actor)}"]')
        lines += [f"    {_vertex(v)}" for v in drawing.vertices if v.actor == actor]
        lines.append("  end")
    lines += [f"  n{arrow.source} -.- n{arrow.target}" for arrow in drawing.fields]
    for arrow in drawing.arrows:
        line = "==>" if arrow.accelerator else "-->"
        note = f'|"{_escaped(arrow.note)}"|' if details else ""
        lines.append(f"  n{arrow.source} {line}{note} n{arrow.target}")
    return "\n".join(lines)


def _vertex(vertex: Vertex) -> str:
    opening, closing = _SHAPES[vertex.kind]
    text = _escaped(vertex.short.replace(f":{vertex.actor}.", ": ", 1))
    return f'n{vertex.number}{opening}"{text}"{closing}'


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in " .,:()[]_-" else f"#{ord(c)};" for c in text)
