"""Memory of large results, kept for the next ones (see `compiled_dag.channel.warm`)."""

from __future__ import annotations

import math
from typing import Final

import torch

from compiled_dag.channel.warm import LARGE_BYTES, WarmBytes

KEPT_BYTES: Final = 256 << 20
"""At most, by one group."""


class WarmMemory:
    """What one group has lent, and has back."""

    def __init__(self) -> None:
        self._bytes = WarmBytes()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return contiguous memory in the host, warm if there is some of this size."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < LARGE_BYTES:
            return torch.empty(shape, dtype=dtype)
        lent = self._bytes.lend(nbytes, KEPT_BYTES)
        return torch.from_numpy(lent).view(dtype).view(shape)

    def close(self) -> None:
        """Let go of what is here."""
        self._bytes.clear()
