"""Looking for nodes in the arguments of a `.bind()`, and putting their results in their places.

Nodes *in the open* stand in lists, tuples and dicts; a compiled graph puts values in their places
with templates. Nodes *hidden* in any other object are found by pickling it (`scan`); only
interpreted graphs can use those.

Whatever is made of arguments later (templates, pickles) is made recursively, so what would not end,
or not before the interpreter's limit, is refused here, while there is a line to name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from compiled_dag.opaque import holds_nothing

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_NESTED: Final = 50
"""Containers inside each other; an actor unpickles templates with several calls per level."""

_Kind = TypeVar("_Kind")


class NestingError(Exception):
    """Containers form a cycle, or are too deep. Callers say which argument of what it is."""


@dataclass(frozen=True, slots=True)
class Found(Generic[_Kind]):  # no NamedTuple: Python 3.10 has no generic ones
    """What an argument holds."""

    nodes: list[_Kind]
    """Those in the open, then the hidden ones; each as often as it stands there."""
    hidden: list[tuple[_Kind, object]]
    """Nodes that are not in the open, with the object each is inside of; one for each object."""


def search(value: object, kind: type[_Kind]) -> Found[_Kind]:
    """Look for the instances of `kind` in `value`.

    Raises:
        NestingError: A container contains itself, or there are too many inside each other.
        TypeError: Part of `value` cannot be pickled; names the path to it.
    """
    look = _Search(kind)
    look.height(value)
    if not look.objects:
        return Found(look.found, [])
    from compiled_dag import scan  # noqa: PLC0415  and cloudpickle: 7 ms that few graphs need

    try:
        inside = scan.nodes_inside([part for part, _ in look.objects], kind)
    except TypeError:
        scan.nodes_inside(value, kind)  # raises with the path from the argument on
        raise
    hidden: list[tuple[_Kind, object]] = []
    for part, whole in look.objects if inside else ():
        hidden += [(node, whole) for node in scan.nodes_inside(part, kind)[:1]]
    return Found(look.found + inside, hidden)


def replaced(value: Any, kind: type[_Kind], replacement: Callable[[_Kind], Any]) -> Any:
    """Return `value` with ``replacement(it)`` in place of each instance of `kind` in it.

    Raises:
        NestingError: As `search`.
        TypeError: As `search`.
    """
    if isinstance(value, kind):
        return replacement(value)
    found = search(value, kind)
    if found.hidden:
        from compiled_dag import scan  # noqa: PLC0415  as in `search`

        return scan.replaced(value, kind, replacement)
    return _rebuilt(value, kind, replacement) if found.nodes else value


def _rebuilt(value: Any, kind: type[_Kind], replacement: Callable[[_Kind], Any]) -> Any:
    if isinstance(value, kind):
        return replacement(value)
    if type(value) is list:
        return [_rebuilt(item, kind, replacement) for item in value]
    if type(value) is tuple:
        return tuple([_rebuilt(item, kind, replacement) for item in value])
    if type(value) is dict:
        return {key: _rebuilt(item, kind, replacement) for key, item in value.items()}
    return value


class _Search(Generic[_Kind]):
    """Visits every container once, however often it appears."""

    def __init__(self, kind: type[_Kind]) -> None:
        self.found: list[_Kind] = []
        self.objects: list[tuple[object, object]] = []
        """What is no container, or a key, and may hide something; and what messages name."""
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
            if not holds_nothing(value):
                self.objects.append((value, value))
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
        items = value
        if type(value) is dict:
            self.objects += [(key, value) for key in value if not holds_nothing(key)]
            items = value.values()
        self._open.add(id(value))
        height = 1 + max(map(self.height, items), default=0)
        self._open.remove(id(value))
        return height
