"""Colours of boxes: one per actor, others for what the driver has."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.picture.drawing import Kind

FILL: Final[dict[Kind, str]] = {
    "input": "#cfe2f3",
    "output": "#fff2b3",
    "call": "#e8e8e8",
    "element": "#f8d7b0",
    "collective": "#e3d0f0",
}


def colours_of(actors: Sequence[str]) -> dict[str, str]:
    """Return a light colour for each actor, as different from its neighbours' as can be."""
    colours = {}
    for number, actor in enumerate(actors):
        red, green, blue = colorsys.hls_to_rgb(0.28 + number * 0.381966, 0.82, 0.55)
        channels = (round(255 * part) for part in (red, green, blue))
        colours[actor] = "#" + "".join(f"{part:02x}" for part in channels)
    return colours
