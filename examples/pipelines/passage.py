"""Lines of text with how much each of their characters surprised a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from pipelines.text import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.text import Tokens

WIDTH, NUM_LINES = 80, 9
MOST_NATS = 7.0
"""From here on all has one colour."""
EXPECTED, UNEXPECTED = (255, 250, 225), (224, 72, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, and the surprise of each character in nats."""

    text: str
    nats: tuple[float, ...]


def passage(batches: Sequence[Tokens], found: Sequence[NDArray[Any]]) -> list[Line]:
    """Return the first lines of what was read, without the one that it begins amid."""
    text = decode(np.concatenate([batch[:, 1:].ravel() for batch in batches]))
    nats = np.concatenate([values.ravel() for values in found]).tolist()
    lines: list[Line] = []
    begin = text.find("\n") + 1
    for line in text[begin:].split("\n"):
        if line.strip() and len(lines) < NUM_LINES:
            width = min(len(line), WIDTH)
            lines.append(Line(text=line[:width], nats=tuple(nats[begin : begin + width])))
        begin += len(line) + 1
    return lines


def shade(nats: float) -> str:
    """Return the colour of a surprise, as a web page would write it."""
    share = min(nats / MOST_NATS, 1.0)
    mixed = (round(a + share * (b - a)) for a, b in zip(EXPECTED, UNEXPECTED, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def coloured(lines: Sequence[Line]) -> Text:
    """Return the lines for a terminal."""
    result = Text(no_wrap=True, overflow="crop")
    for line in lines:
        for character, nats in zip(line.text, line.nats, strict=True):
            result.append(character, style=f"black on {shade(nats)}")
        result.append("\n")
    return result
