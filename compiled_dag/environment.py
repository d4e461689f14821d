"""Environment variables that configure graphs: ``COMPILED_DAG_<NAME>``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "COMPILED_DAG_"


class Variable(NamedTuple):
    """A variable that is set."""

    name: str
    text: str


class _Fallback:
    """Where to look for a setting whose own variable is not set."""

    read: Callable[[str], Variable | None] | None = None


def fall_back_on(read: Callable[[str], Variable | None] | None) -> None:
    """Have `read` asked for settings whose own variable is not set; None ends that.

    Args:
        read: Takes a setting (``GET_TIMEOUT``); returns the variable to use, or None.
    """
    _Fallback.read = read


def lookup(name: str) -> Variable | None:
    """Return the variable of a setting (``GET_TIMEOUT``), or None if it is not set."""
    text = os.environ.get(PREFIX + name)
    if text is not None:
        return Variable(PREFIX + name, text)
    return None if _Fallback.read is None else _Fallback.read(name)
