"""A graph as text: lists that scripts read, and a picture made of characters.

In the picture every layer of nodes is a line. The lines between two layers hold one *track* for
each node whose arrows go sideways: its arrows leave at its first column, run along the track and
end in the first column of their targets. Nodes with the same targets share one::

    2:Output[0]     3:Output[1]
    +---------------|---.
    |               +---.
    v                   v
    5:Worker(1).add     4:Worker(2).join

At ``+`` an arrow from above goes sideways, and further down if there is a line. At ``.`` one from
the side turns down, and one from above passes. A track that is crossed is interrupted (``--|--``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compiled_dag.picture.layers import Item, Layers, layers_of, positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.picture.drawing import Drawing

_GAP: Final = 3
_UNIT: Final = 4
_ASIDE: Final = 2
"""Where an arrow ends whose usual column is taken: no other arrow can be there (see `_UNIT`)."""
_ASIDE_BEND: Final = ".-+"
"""A bend whose arrow does so."""


def ascii_text(drawing: Drawing) -> str:
    """Return nodes, edges, legend and picture."""
    return "\n".join(
        [
            "Nodes Information:",
            *(f'{v.number} [label="Task {v.number}  {v.what}"]' for v in drawing.vertices),
            "",
            "Edges Information:",
            *(
                f"{a.source} {'+++' if a.accelerator else '---'}> {a.target}"
                for a in drawing.arrows
            ),
            "",
            "Legend:",
            "+++> : an edge whose value stays on an accelerator",
            "---> : an edge through the memory of the host",
            "",
            "Graph:",
            *picture(drawing),
        ]
    )


def picture(drawing: Drawing) -> list[str]:
    """Return the lines of the picture."""
    arrows = [(arrow.source, arrow.target) for arrow in (*drawing.fields, *drawing.arrows)]
    layers = layers_of(len(drawing.vertices), arrows)

    def text(item: Item) -> str:
        return _ASIDE_BEND if item.is_bend else drawing.vertices[item.node].short

    left = positions(layers, lambda item: len(text(item)), _GAP, _UNIT)
    lines: list[str] = []
    ends: set[int] = set()
    for number, row in enumerate(layers.rows):
        if number:
            between, ends = _between(layers, layers.rows[number - 1], left)
            lines += between
        line = ""
        for item in row:
            passes = item.is_bend and left[item] in ends
            line = line.ljust(left[item]) + ("|" if passes else text(item))
        lines.append(line)
    return lines


class _Net:
    """The arrows of one item to the next layer."""

    def __init__(self, start: int, ends: tuple[int, ...]) -> None:
        self.start = start
        self.ends = ends
        """Columns; none for a node that nobody needs."""
        self.targets = frozenset(ends)
        self.is_straight = self.targets == {start}
        self.goes_sideways = bool(self.targets - {start})
        columns = (start, *ends)
        self.span = range(min(columns), max(columns) + 2)
        """The columns its track takes, with one to spare."""


def _between(
    layers: Layers, above: Sequence[Item], left: Mapping[Item, int]
) -> tuple[list[str], set[int]]:
    """Return the lines between a layer and the next one, and the columns where arrows end."""
    nets = [
        _Net(left[item], tuple(left[target] for target in layers.down.get(item, ())))
        for item in above
    ]
    nets, tracks = _tracks(nets)
    bends = {left[target] for item in above for target in layers.down.get(item, ())
             if target.is_bend}  # fmt: skip
    bends |= {bend + _ASIDE for bend in bends}
    return _drawn(nets, tracks, bends), {end for net in nets for end in net.ends}


def _tracks(nets: list[_Net]) -> tuple[list[_Net], list[int]]:
    """Give every net that goes sideways a track from 0, so that no two lines lie on each other.

    A net that leaves from a column where another one ends may have to be above that one. Where
    this goes in a circle, an arrow ends beside its usual column.
    """
    number_at = {net.start: number for number, net in enumerate(nets)}
    tracks = [-1] * len(nets)
    todo = [number for number, net in enumerate(nets) if net.goes_sideways]
    while todo:
        waiting = set(todo)
        free = [n for n in todo if waiting.isdisjoint(_above(nets, number_at, n))]
        if not free:
            net = nets[todo[0]]
            taken = {nets[n].start for n in todo[1:]}
            ends = tuple(end + _ASIDE if end in taken else end for end in net.ends)
            nets[todo[0]] = _Net(net.start, ends)
            continue
        for number in free:
            tracks[number] = _free_track(nets, tracks, number, _above(nets, number_at, number))
        todo = [number for number in todo if number not in free]
    return nets, tracks


def _above(nets: Sequence[_Net], number_at: Mapping[int, int], number: int) -> list[int]:
    """Return the nets that have to be above this one: they leave where it ends, and not only down.

    Otherwise what comes from this one would seem to go on along their tracks.
    """
    net = nets[number]
    found = [number_at[end] for end in net.ends if end in number_at]
    return [n for n in found if not nets[n].is_straight and nets[n].targets != net.targets]


def _free_track(
    nets: Sequence[_Net], tracks: Sequence[int], number: int, above: Sequence[int]
) -> int:
    net = nets[number]
    # A free line between: a node or corner and a turn one below the other would look joined.
    first = max((tracks[n] + 1 + (nets[n].start not in nets[n].targets) for n in above), default=0)
    taken = {tracks[n] for n in range(len(nets)) if tracks[n] >= first and _disturb(nets[n], net)}
    return next(track for track in range(first, first + len(nets) + 1) if track not in taken)


def _disturb(one: _Net, other: _Net) -> bool:
    """Whether two nets cannot share a track. They may if all their arrows end at the same nodes."""
    apart = one.span.stop <= other.span.start or other.span.stop <= one.span.start
    return not apart and one.targets != other.targets


def _drawn(nets: Sequence[_Net], tracks: Sequence[int], bends: set[int]) -> list[str]:
    height = 2 + max(tracks, default=-1)
    width = max((net.span.stop for net in nets), default=0)
    grid = [[" "] * width for _ in range(height)]
    for net, track in zip(nets, tracks, strict=True):
        if track >= 0:
            for column in net.span[:-1]:
                grid[track][column] = "-"
    for net, track in zip(nets, tracks, strict=True):
        _draw_down(grid, range(max(track, 0)), net.start)
        for column in net.ends:
            _draw_down(grid, range(max(track, 0), height - 1), column)
            grid[-1][column] = "|" if column in bends else "v"
    sideways = [(net, track) for net, track in zip(nets, tracks, strict=True) if track >= 0]
    for net, track in sideways:
        for column in net.ends:
            grid[track][column] = "."
    for net, track in sideways:
        grid[track][net.start] = "+"
    return ["".join(row).rstrip() for row in grid]


def _draw_down(grid: list[list[str]], rows: range, column: int) -> None:
    for row in rows:
        grid[row][column] = "|"
