"""A graph as an SVG picture, drawn here: notebooks need no other program."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from compiled_dag.picture.colours import FILL, colours_of
from compiled_dag.picture.layers import Item, layers_of, positions

if TYPE_CHECKING:
    from compiled_dag.picture.drawing import Arrow, Drawing, Vertex

_LETTER: Final = 7.5
"""Pixels, rounded up, of a letter of the font."""
_LINE: Final = 16
_PADDING: Final = 10
_STEP: Final = 44
"""Between layers."""
_GAP: Final = 24
_BEND: Final = 12
"""Width of a place where an arrow passes."""


def svg_text(drawing: Drawing) -> str:
    """Return the picture as one SVG element."""
    arrows = (*drawing.fields, *drawing.arrows)
    layers = layers_of(len(drawing.vertices), [(one.source, one.target) for one in arrows])

    def width(item: Item) -> int:
        return _BEND if item.is_bend else _width(drawing.vertices[item.node])

    left = positions(layers, width, _GAP, 4)
    top: dict[int, int] = {}
    down = _PADDING
    for number, row in enumerate(layers.rows):
        top[number] = down
        down += max(_height(drawing.vertices[i.node]) for i in row if not i.is_bend) + _STEP
    at = {item: (left[item] + _PADDING, top[item.layer]) for item in left}
    right = max(left[item] + width(item) for item in left) + 2 * _PADDING
    parts = [_path(arrow, drawing, at, dashed=arrow in drawing.fields) for arrow in arrows]
    colours = colours_of(drawing.actors)
    for item, place in at.items():
        if not item.is_bend:
            vertex = drawing.vertices[item.node]
            parts.append(_box(vertex, *place, colours.get(vertex.actor, FILL[vertex.kind])))
    return _framed(parts, right, down - _STEP + _PADDING)


def _framed(parts: list[str], width: int, height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="12">'
    )
    tip = (
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#444"/></marker></defs>'
    )
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, tip, ground, *parts, "</svg>"])


def _width(vertex: Vertex) -> int:
    return round(max(map(len, vertex.lines)) * _LETTER) + 2 * _PADDING


def _height(vertex: Vertex) -> int:
    return len(vertex.lines) * _LINE + _PADDING


def _box(vertex: Vertex, x: int, y: int, fill: str) -> str:
    width, height = _width(vertex), _height(vertex)
    rounded = 10 if vertex.kind == "call" else 0
    lines = "".join(
        f'<tspan x="{x + width // 2}" y="{y + (number + 1) * _LINE}">{escape(line)}</tspan>'
        for number, line in enumerate(vertex.lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{rounded}" fill="{fill}" '
        f'stroke="#444"/><text text-anchor="middle">{lines}</text>'
    )


def _path(arrow: Arrow, drawing: Drawing, at: dict[Item, tuple[int, int]], *, dashed: bool) -> str:
    """Return a smooth line from below the source, past the bends, to the top of the target."""
    layer = {item.node: item.layer for item in at if not item.is_bend}
    places = [(Item(arrow.source, layer[arrow.source]), _width(drawing.vertices[arrow.source]))]
    places += [
        (Item(arrow.source, between, is_bend=True), _BEND)
        for between in range(layer[arrow.source] + 1, layer[arrow.target])
    ]
    places += [(Item(arrow.target, layer[arrow.target]), _width(drawing.vertices[arrow.target]))]
    (x, y), *others = [(at[item][0] + width // 2, at[item][1]) for item, width in places]
    y += _height(drawing.vertices[arrow.source])
    path = f"M{x},{y}"
    for next_x, next_y in others:
        middle = (y + next_y) // 2
        path += f" C{x},{middle} {next_x},{middle} {next_x},{next_y}"
        x, y = next_x, next_y
    style = 'stroke="#1f5fbf" stroke-width="2.5"' if arrow.accelerator else 'stroke="#444"'
    style += ' stroke-dasharray="3 3"' if dashed else ""
    note = f"<title>{escape(arrow.note)}</title>" if arrow.note else ""
    return f'<path d="{path}" fill="none" {style} marker-end="url(#tip)">{note}</path>'
