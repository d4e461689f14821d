"""Numbers as integers in the same order, NaN at one end: where a backend's MAX may drop NaN.

gloo keeps the larger of two numbers by ``a < b``, which is false for NaN on either side: whether
one came out depended on the order of the ranks. Of integers it has a MAX and a MIN without gaps.

The bits of a number, read as a signed integer, are in order but for negative numbers, which are in
reverse: these get all bits but the sign's flipped. Then NaN lie above infinity, or below minus
infinity (what a processor makes is negative). Adding what lies between one infinity and its end
brings, modulo 2^n, the NaN of both ends to one.

An allreduce of 2 ranks takes 8 % longer for it with 1 KiB, 60 % with 1 MiB or 16 MiB (2 cores). To
reduce where NaN is beside the numbers would be a second operation each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGERS: Final = {torch.float32: torch.int32, torch.float64: torch.int64}
_NAN_BITS: Final = {torch.int32: (1 << 23) - 1, torch.int64: (1 << 52) - 1}
"""How many NaN there are of each sign."""
_BLOCK: Final = 1 << 16
"""Elements at a time: they stay in the cache from one step to the next."""


def ordered(
    numbers: torch.Tensor, op: str, empty: Callable[[torch.dtype], torch.Tensor]
) -> tuple[torch.Tensor, Callable[[], None]]:
    """Return integers to reduce in place of numbers, and what puts the result into these.

    Args:
        numbers: In host memory, contiguous, of a floating-point dtype; its memory may be used.
        op: "MAX" or "MIN".
        empty: Makes memory like `numbers`, of another dtype.
    """
    numbers = numbers.detach()
    wide = numbers
    if numbers.dtype not in _INTEGERS:
        wide = empty(torch.float32).copy_(numbers)
    keys = wide.view(_INTEGERS[wide.dtype])
    array = keys.numpy().reshape(-1)  # for a few elements NumPy takes a third of torch's time
    blocks = [array[first : first + _BLOCK] for first in range(0, len(array), _BLOCK)]
    shift = _NAN_BITS[keys.dtype] * (-1 if op == "MAX" else 1)
    for block in blocks:
        _flip(block)
        np.add(block, shift, out=block)

    def finish() -> None:
        for block in blocks:
            np.subtract(block, shift, out=block)
            _flip(block)
        if wide is not numbers:
            numbers.copy_(wide)

    return keys, finish


def _flip(keys: Any) -> None:
    """Reverse the order of negative numbers; done twice it changes nothing."""
    info = np.iinfo(keys.dtype)
    flips = keys >> (info.bits - 1)
    flips &= info.max
    keys ^= flips
