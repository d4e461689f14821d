"""Arguments of a call as one parcel, with the references among them taken out.

A reference pickles as "value number i"; the values travel beside the arguments, as the parcels they
arrived in, and are put back while the actor unpickles.
"""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel.codec import Kind
from runtime.parcel import INLINE_BYTES, Parcel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.objects import ObjectRef

_PLAIN: Final = frozenset({str, bool, int, float, complex, bytes, type(None)})
_NONE: Final[Mapping[str, Any]] = {}


class _Collector(threading.local):
    """The references found by the pickling that this thread is doing; None: refuse them."""

    found: list[ObjectRef] | None = None


_collector = _Collector()


def reduce_reference(ref: ObjectRef) -> Any:
    """Pickle `ref` as the value that will be in its place.

    Raises:
        TypeError: References may not be here.
    """
    if _collector.found is None:
        raise TypeError(
            f"{ref!r} cannot be sent inside another object so far. Pass it as an argument of its "
            "own (it arrives as its value), or pass runtime.get(ref)"
        )
    return _value, (_number(ref, _collector.found),)


def pack_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], *, nested: bool = False
) -> tuple[Parcel, list[ObjectRef]]:
    """Return the arguments encoded, and the references whose values they need.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        nested: Take references anywhere inside the arguments, not only at the top.

    Raises:
        TypeError: An argument cannot be pickled; the message names the path to it.
    """
    found: list[ObjectRef] = []
    if not kwargs and all(arg.__class__ in _PLAIN for arg in args):
        head = pickle.dumps((args, _NONE), 5)
        if len(head) <= INLINE_BYTES:
            return Parcel(Kind.PICKLE, 0, len(head), len(head), head), found
    if nested:
        _collector.found = found
        try:
            return Parcel.of((tuple(args), dict(kwargs))), found
        finally:
            _collector.found = None
    top = tuple(_replaced(arg, found) for arg in args)
    named = {name: _replaced(arg, found) for name, arg in kwargs.items()}
    return Parcel.of((top, named)), found


def _replaced(arg: Any, found: list[ObjectRef]) -> Any:
    return _Slot(_number(arg, found)) if getattr(arg, "_is_object_ref", False) is True else arg


def _number(ref: ObjectRef, found: list[ObjectRef]) -> int:
    for number, known in enumerate(found):
        if known is ref:
            return number
    found.append(ref)
    return len(found) - 1


class _Slot:
    """Stands for a reference at the top of the arguments."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return _value, (self._number,)


# --- in the actor ---------------------------------------------------------------------------------

_values: list[Any] = []
"""Values of the references of the call being unpickled (on the main thread)."""


def _value(number: int) -> Any:
    return _values[number]


def load_arguments(parcels: Sequence[Parcel]) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return args and kwargs from the parcels of a `Call`."""
    if len(parcels) == 1:
        args, kwargs = parcels[0].load()
        return args, kwargs
    _values.extend(parcel.load() for parcel in parcels[1:])
    try:
        args, kwargs = parcels[0].load()
    finally:
        _values.clear()
    return args, kwargs
