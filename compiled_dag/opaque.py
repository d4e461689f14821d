"""What is not looked into when nodes are looked for.

Arrays and tensors hold no nodes, and may be large. References and handles say by `OPAQUE` that
their pickling is more than looking: it means that somebody else will hold them.
"""

from __future__ import annotations

from typing import Final

OPAQUE: Final = "__opaque_to_graphs__"
"""Name of the class attribute that says: do not look into my instances."""

_PLAIN: Final = frozenset({str, bool, int, float, complex, bytes, bytearray, range, type(None)})


def holds_nothing(value: object) -> bool:
    """Tell whether no node can be inside `value`, without looking into it."""
    kind = type(value)
    if kind in _PLAIN or getattr(kind, OPAQUE, False):
        return True
    is_array = hasattr(kind, "__dlpack__")
    return is_array and not getattr(getattr(value, "dtype", None), "hasobject", False)
