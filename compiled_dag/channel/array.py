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
    if kind.__name__ != "ndarray":
        return False
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is numpy.ndarray


def head_of(array: Array) -> bytes:
    """Return dtype and shape, pickled."""
    key = (array.dtype, array.shape)
    found = _heads.get(key)
    if found is None:
        if len(_heads) >= _CACHE_LIMIT:
            _heads.clear()
        found = _heads[key] = pickle.dumps(key, 5)
    return found


def bytes_of(array: Array) -> Array:
    """Return a view of the bytes of a contiguous array without objects, of shape (nbytes,)."""
    return array.reshape(-1).view("u1")


def from_buffer(head: tuple[Any, Any], buffer: Any) -> Array:
    """Return an array over `buffer`, with the dtype and shape in `head`."""
    dtype, shape = head
    made: Array = sys.modules["numpy"].ndarray(shape, dtype, buffer)
    return made


def reduced(array: Array) -> Any:
    """Return how to pickle an array with gaps: numpy would put it, writable, into the pickle."""
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous or array.dtype.hasobject:
        return NotImplemented
    return array.copy("C").__reduce_ex__(5)
