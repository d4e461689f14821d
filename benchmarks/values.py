"""Make the values that are sent: of one kind and so many bytes in all."""

from __future__ import annotations

from typing import Any

import numpy as np

KINDS = ("numpy", "torch", "bytes")
_PARTS = 12
"""Arrays in a nested value: in three dictionaries."""


def make(kind: str, nbytes: int) -> Any:
    """Return a value of `nbytes` bytes, all of them 1.

    Args:
        kind: ``"numpy"``, ``"torch"``, ``"bytes"``, or ``"nested"`` for dictionaries of arrays.
        nbytes: Its size.

    Raises:
        KeyError: There is no such kind.
    """
    return _MAKERS[kind](nbytes)


def _tensor(nbytes: int) -> Any:
    import torch  # noqa: PLC0415  most cases do without

    return torch.ones(nbytes, dtype=torch.uint8)


def _nested(nbytes: int) -> dict[str, dict[str, Any]]:
    part = nbytes // _PARTS
    return {
        outer: {inner: np.ones(part, dtype=np.uint8) for inner in ("w", "b", "m", "v")}
        for outer in ("first", "second", "third")
    }


_MAKERS = {
    "numpy": lambda nbytes: np.ones(nbytes, dtype=np.uint8),
    "torch": _tensor,
    "bytes": lambda nbytes: b"\1" * nbytes,
    "nested": _nested,
}
