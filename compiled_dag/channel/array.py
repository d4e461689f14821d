"""numpy arrays to bytes and back.

Whoever makes an array has imported numpy: a process that sees none never imports it.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CACHE_LIMIT: Final = 512
_heads: dict[tuple[Any, Any], bytes] = {}
"""Dtype and shape repeat for ever in a graph: they are pickled once."""


def is_array(kind: type) -> bool:
    """Tell whether instances of exactly this type are arrays."""
    if kind is _Known.array:
        return True
    if kind.__name__ != "ndarray":
        return False
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _Known.array = numpy.ndarray
    return kind is _Known.array


class _Known:
    """The class of arrays, once somebody has asked about it."""

    array: Any = None


def head_of(array: Array) -> bytes:
    """Return dtype and shape, pickled."""
    key = (array.dtype, array.shape)
    found = _heads.get(key)
    if found is None:
        if len(_heads) >= _CACHE_LIMIT:
            _heads.clear()
        found = _heads[key] = pickle.dumps(key, 5)
    return found


def bytes_of(array: Array) -> Any:
    """Return a view of the bytes of a contiguous array without objects, of shape (nbytes,)."""
    return array.reshape(-1).view("u1")


def from_buffer(head: tuple[Any, Any], buffer: Any) -> Array:
    """Return an array over `buffer`, with the dtype and shape in `head`."""
    dtype, shape = head
    made: Array = sys.modules["numpy"].ndarray(shape, dtype, buffer)
    return made


def reduced(array: Any) -> Any:
    """Return how to pickle an array: as a call of its class, over a buffer out of band.

    That takes half the time of numpy's own way, which would put arrays with gaps, and of dates,
    into the pickle, and have them arrive writable.
    """
    dtype, flags = array.dtype, array.flags
    if dtype.hasobject:
        return NotImplemented
    if flags.c_contiguous:
        try:
            return _Known.array, (array.shape, dtype, pickle.PickleBuffer(array))
        except ValueError:  # it does not lend out dates as such
            return _Known.array, (array.shape, dtype, pickle.PickleBuffer(bytes_of(array)))
    if flags.f_contiguous:
        beside = pickle.PickleBuffer(bytes_of(array.T))
        return _Known.array, (array.shape, dtype, beside, 0, None, "F")
    return reduced(array.copy("C"))
