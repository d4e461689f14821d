"""Looking for nodes inside any object, and putting other things in their places.

What an object holds is known only to its pickling, so it is pickled, and whatever is a node on the
way is left out and remembered. To replace nodes the pickle is loaded again with other things where
they were left out.

Some things are neither looked into nor copied: those that `opaque.holds_nothing` knows.
"""

from __future__ import annotations

import io
import pickle
import threading
from typing import TYPE_CHECKING, Any

import cloudpickle

from compiled_dag.opaque import holds_nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class _Loading(threading.local):
    """What takes the places of the things left out, while this thread loads a pickle."""

    places: Sequence[Any] = ()


_loading = _Loading()


def nodes_inside(value: object, kind: type) -> list[Any]:
    """Return the instances of `kind` anywhere inside `value`, in the order they are met.

    Raises:
        TypeError: Part of `value` cannot be pickled; names the path to it.
    """
    return [found for found in _scan(value, kind).left_out if isinstance(found, kind)]


def replaced(value: Any, kind: type, replacement: Callable[[Any], Any]) -> Any:
    """Return a copy of `value` with ``replacement(it)`` in place of each instance of `kind`.

    Raises:
        TypeError: Part of `value` cannot be pickled; names the path to it.
        Exception: Whatever unpickling the user's objects raises.
    """
    scanner = _scan(value, kind)
    before = _loading.places
    _loading.places = [
        replacement(found) if isinstance(found, kind) else found for found in scanner.left_out
    ]
    try:
        return pickle.loads(scanner.file.getvalue(), buffers=scanner.buffers)
    finally:
        _loading.places = before


class _Scanner(cloudpickle.Pickler):  # type: ignore[misc]  # it comes without types
    def __init__(self, kind: type) -> None:
        self.file = io.BytesIO()
        self.buffers: list[pickle.PickleBuffer] = []
        self.left_out: list[Any] = []
        self._kind = kind
        super().__init__(self.file, 5, buffer_callback=self.buffers.append)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, self._kind) or holds_nothing(value):
            self.left_out.append(value)
            return _take, (len(self.left_out) - 1,)
        return super().reducer_override(value)


def _take(position: int) -> Any:
    return _loading.places[position]


def _scan(value: object, kind: type) -> _Scanner:
    scanner = _Scanner(kind)
    try:
        scanner.dump(value)
    except Exception as error:
        path, culprit = _descend("value", value, kind, depth=0)
        where = f"{type(culprit).__module__}.{type(culprit).__qualname__}"
        msg = f"{path} of type {where} cannot be pickled ({type(error).__name__}: {error})"
        raise TypeError(msg) from error
    return scanner


def _descend(path: str, value: object, kind: type, depth: int) -> tuple[str, object]:
    """Return the innermost member of `value` that cannot be pickled, and the path to it."""
    if depth < 10:  # noqa: PLR2004  deep enough to point at it, and cycles end
        for name, member in _members(value):
            try:
                _Scanner(kind).dump(member)
            except Exception:  # noqa: BLE001  pickle raises many types
                return _descend(path + name, member, kind, depth + 1)
    return path, value


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", member) for key, member in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{index}]", member) for index, member in enumerate(value)]
    return [(f".{name}", member) for name, member in getattr(value, "__dict__", {}).items()]
