"""Place the nodes of a graph in layers, so that every arrow points from one layer to the next.

The usual four steps: each node is one layer below the lowest node it needs; an arrow over several
layers is cut into pieces by *bends*, one per source and layer, however many arrows share them; the
order within layers is improved by moving every item to the mean place of its neighbours; widths and
the places of the layer above give positions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_SWEEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Item:
    """A node in its layer, or where its arrows pass through a layer further down."""

    node: int
    layer: int
    is_bend: bool = False


@dataclass(frozen=True, slots=True)
class Layers:
    """Items in layers, each from left to right, and the pieces of arrows between them."""

    rows: tuple[tuple[Item, ...], ...]
    down: Mapping[Item, tuple[Item, ...]]
    """Items of the next layer that each is joined with."""


def layers_of(num_nodes: int, arrows: Iterable[tuple[int, int]]) -> Layers:
    """Place nodes 0 to ``num_nodes - 1``, joined by `arrows` without a cycle."""
    after: dict[int, list[int]] = {node: [] for node in range(num_nodes)}
    for source, target in dict.fromkeys(arrows):
        after[source].append(target)
    level = _levels(after)
    rows: dict[int, list[Item]] = defaultdict(list)
    down: dict[Item, list[Item]] = defaultdict(list)
    for node in range(num_nodes):
        rows[level[node]].append(Item(node, level[node]))
    for node in range(num_nodes):
        here = Item(node, level[node])
        lowest = max((level[target] for target in after[node]), default=0)
        for layer in range(level[node] + 1, lowest + 1):
            down[here] += [Item(t, layer) for t in after[node] if level[t] == layer]
            if layer < lowest:
                bend = Item(node, layer, is_bend=True)
                rows[layer].append(bend)
                down[here].append(bend)
                here = bend
    ordered = _ordered([rows[layer] for layer in sorted(rows)], down)
    return Layers(
        tuple(map(tuple, ordered)), {item: tuple(targets) for item, targets in down.items()}
    )


def _levels(after: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Return each node's layer; one that needs nothing is just above the first that needs it."""
    missing = dict.fromkeys(after, 0)
    for targets in after.values():
        for target in targets:
            missing[target] += 1
    ready = [node for node in after if not missing[node]]
    level = dict.fromkeys(after, 0)
    sources = list(ready)
    while ready:
        node = ready.pop()
        for target in after[node]:
            level[target] = max(level[target], level[node] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    for node in sources:
        level[node] = max(0, min((level[target] for target in after[node]), default=1) - 1)
    return level


def _ordered(rows: list[list[Item]], down: Mapping[Item, Sequence[Item]]) -> list[list[Item]]:
    up: dict[Item, list[Item]] = defaultdict(list)
    for item, targets in down.items():
        for target in targets:
            up[target].append(item)
    for sweep in range(_SWEEPS):
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for layer in order:
            fixed = rows[layer - 1] if sweep % 2 == 0 else rows[layer + 1]
            joined = up if sweep % 2 == 0 else down
            place = {item: number for number, item in enumerate(fixed)}
            own = {item: number for number, item in enumerate(rows[layer])}
            mean = {
                item: _mean([place[other] for other in joined.get(item, ())], own[item])
                for item in rows[layer]
            }
            rows[layer].sort(key=lambda item, mean=mean: mean[item])  # type: ignore[misc]
    return rows


def _mean(values: Sequence[int], default: float) -> float:
    return sum(values) / len(values) if values else default


def positions(layers: Layers, width: Callable[[Item], int], gap: int, unit: int) -> dict[Item, int]:
    """Return the left edge of every item: a multiple of `unit`, `gap` or more apart."""
    left: dict[Item, int] = {}
    for number, row in enumerate(layers.rows):
        above = layers.rows[number - 1] if number else ()
        wanted: dict[Item, list[int]] = defaultdict(list)
        for item in above:
            for target in layers.down.get(item, ()):
                wanted[target].append(left[item])
        free = 0
        for item in row:
            places = sorted(wanted[item])
            start = max(free, places[(len(places) - 1) // 2] if places else 0)
            left[item] = -(-start // unit) * unit
            free = left[item] + width(item) + gap
    return left
