"""Arguments of a call as one parcel, with the references among them taken out.

A reference at the top of the arguments pickles as "value number i"; the values travel beside the
arguments, as the parcels they arrived in, and are put back when the arguments are unpickled.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel.codec import Kind
from runtime.parcel import INLINE_BYTES, Parcel
from runtime.references import Slot, index_in, supplying_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.objects import ObjectRef

_PLAIN: Final = frozenset({str, bool, int, float, complex, bytes, type(None)})
_NONE: Final[Mapping[str, Any]] = {}
_PICKLE: Final = int(Kind.PICKLE)


def pack_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], *, hidden: int = 0
) -> tuple[Parcel, list[ObjectRef]]:
    """Return the arguments encoded, and the references whose values they need.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        hidden: How many of the first arguments the user does not know of.

    Raises:
        TypeError: An argument cannot be pickled; the message names the path to it.
    """
    if not kwargs and _are_plain(args):
        head = pickle.dumps((args, _NONE), 5)
        if len(head) <= INLINE_BYTES:
            return Parcel(_PICKLE, 0, len(head), len(head), head), []
    needed: dict[ObjectRef, int] = {}
    try:
        top = tuple([_replaced(arg, needed) for arg in args])
        named = {name: _replaced(arg, needed) for name, arg in kwargs.items()}
        return Parcel.of((top, named)), list(needed)
    except TypeError:
        _blame_argument(args[hidden:], kwargs)
        raise


def _are_plain(args: Sequence[Any]) -> bool:
    for arg in args:  # noqa: SIM110  all() with a generator takes twice the time for one argument
        if arg.__class__ not in _PLAIN:
            return False
    return True


def _blame_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise what is wrong with the first argument that cannot be sent, and which it is."""
    for name, value in (*enumerate(args), *kwargs.items()):
        try:
            Parcel.of(value)
        except TypeError as error:
            culprit = error if error.__cause__ is None else error.__cause__
            text = str(error).replace("value", f"argument {name!r}", 1)
            raise TypeError(text) from culprit


def _replaced(arg: Any, needed: dict[ObjectRef, int]) -> Any:
    if getattr(arg, "_is_object_ref", False) is True:
        return Slot(index_in(arg, needed))
    return arg


def load_arguments(parcels: Sequence[Parcel]) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return args and kwargs from the parcels of a `Call`, once.

    Raises:
        Exception: Whatever unpickling the user's values raises.
    """
    if len(parcels) == 1:
        args, kwargs = parcels[0].take()
        return args, kwargs
    with supplying_values([parcel.take() for parcel in parcels[1:]]):
        args, kwargs = parcels[0].take()
    return args, kwargs
