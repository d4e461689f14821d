"""Looking for nodes in the lists, tuples and dicts among the arguments of a `.bind()`.

Whatever is made of arguments later (templates, pickles) is made recursively, so what would not end,
or not before the interpreter's limit, is refused here, while there is a line to name.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

MOST_NESTED: Final = 50
"""Containers inside each other; an actor unpickles templates with several calls per level."""

_Kind = TypeVar("_Kind")


class NestingError(Exception):
    """Containers form a cycle, or are too deep. Callers say which argument of what it is."""


def find(value: object, kind: type[_Kind]) -> list[_Kind]:
    """Return every instance of `kind` in `value`, looking into lists, tuples and dicts.

    Raises:
        NestingError: A container contains itself, or there are too many inside each other.
    """
    search = _Search(kind)
    search.height(value)
    return search.found


class _Search(Generic[_Kind]):
    """Visits every container once, however often it appears."""

    def __init__(self, kind: type[_Kind]) -> None:
        self.found: list[_Kind] = []
        self._kind = kind
        self._open: set[int] = set()
        """Containers around the one that is looked at."""
        self._heights: dict[int, int] = {}

    def height(self, value: object) -> int:
        """Return how many containers are inside each other in `value`."""
        if isinstance(value, self._kind):
            self.found.append(value)
            return 0
        if type(value) not in (list, tuple, dict):
            return 0
        height = self._heights.get(id(value), 1)
        if len(self._open) + height > MOST_NESTED:
            msg = f"is nested deeper than {MOST_NESTED} containers"
            raise NestingError(msg)
        if id(value) not in self._heights:
            height = self._heights[id(value)] = self._look_into(value)
        return height

    def _look_into(self, value: Any) -> int:
        if id(value) in self._open:
            msg = f"is cyclic: a {type(value).__name__} contains itself"
            raise NestingError(msg)
        items = value.values() if type(value) is dict else value
        self._open.add(id(value))
        height = 1 + max(map(self.height, items), default=0)
        self._open.remove(id(value))
        return height
