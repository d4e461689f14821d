"""Text to model: the source code of Python's own standard library, a character a token."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

Tokens: TypeAlias = NDArray[np.int64]

CHARACTERS = "\n" + string.printable[:95]
"""Digits, letters, punctuation, space, and the end of a line."""
UNKNOWN = CHARACTERS.index("?")
NUM_TRAINING = 800_000
"""Characters to train on; what comes after them is for trying what was learned."""


class TooShortError(Exception):
    """There is less text than asked for."""


def load(first: int, count: int) -> Tokens:
    """Read some characters of the library, whose files are in the order of their names.

    Args:
        first: How many to leave out before.
        count: How many to return.

    Raises:
        TooShortError: The library has fewer.
    """
    library = Path(string.__file__).parent
    parts: list[Tokens] = []
    found = 0
    for path in sorted(library.glob("*.py")):
        parts.append(encode(path.read_text(encoding="utf-8", errors="replace")))
        found += len(parts[-1])
        if found >= first + count:
            return np.concatenate(parts)[first : first + count]
    raise TooShortError(f"{library} has {found:,} characters, not {first + count:,}: read less")


def encode(text: str) -> Tokens:
    """Return the characters' numbers; what is not in `CHARACTERS` counts as a question mark."""
    numbers = {character: number for number, character in enumerate(CHARACTERS)}
    return np.array([numbers.get(character, UNKNOWN) for character in text], dtype=np.int64)


def decode(tokens: Iterable[int]) -> str:
    """Return the text again."""
    return "".join(CHARACTERS[token] for token in tokens)


def draw(tokens: Tokens, pieces: int, length: int, count: int, seed: int) -> list[Tokens]:
    """Draw batches of pieces of the text.

    Args:
        tokens: The text.
        pieces: Pieces of a batch.
        length: Tokens of a piece; one more comes with it, as the last one to be predicted.
        count: Number of batches.
        seed: What the choice follows from.
    """
    starts = np.random.default_rng(seed).integers(len(tokens) - length, size=(count, pieces, 1))
    return list(tokens[starts + np.arange(length + 1)])


def in_order(tokens: Tokens, pieces: int, length: int) -> list[Tokens]:
    """Cut the text into batches as `draw` makes them, one after the other."""
    count = (len(tokens) - 1) // (pieces * length)
    starts = np.arange(count * pieces).reshape(count, pieces, 1) * length
    return list(tokens[starts + np.arange(length + 1)])
