"""Memory of large results, kept for the next ones.

The kernel clears a page before it gives it away, and in a virtual machine the host may have to find
one first: an allreduce of 64 MiB took twice as long for its result's memory as for everything else.
malloc keeps what was freed, but only blocks of up to 32 MiB. So what a large result leaves behind
is kept here, a little, and taken again by a result of the same size.

Nobody but a tensor sees such memory, and it comes back when the last view of the tensor is gone, in
any thread: a deque takes it without a lock. A forked child has copies of its own.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt

LARGE_BYTES: Final = 1 << 20
KEPT_BYTES: Final = 256 << 20
"""At most, by one group."""
_LINE: Final = 64


class _Loan(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes that go back when the last array or tensor over them is gone."""

    home: deque[Any] | None = None
    memory: Any = None

    def __del__(self) -> None:
        home = self.home
        if home is not None:
            home.append(self.memory)


class WarmMemory:
    """What one group has lent, and has back."""

    def __init__(self) -> None:
        self._back: deque[npt.NDArray[np.uint8]] = deque()
        """The one that came back last is at the end."""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return contiguous memory in the host, warm if there is some of this size."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < LARGE_BYTES:
            return torch.empty(shape, dtype=dtype)
        loan: Any = (memory := self._take(nbytes)).view(_Loan)
        loan.home, loan.memory = self._back, memory
        return torch.from_numpy(loan).view(dtype).view(shape)

    def _take(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return what came back last of that size; let go of what has been here for too long."""
        back, found, room = self._back, None, KEPT_BYTES
        for _ in range(len(back)):
            try:
                one = back.pop()
            except IndexError:  # another thread has taken it
                break
            if found is None and len(one) == nbytes:
                found = one
            elif len(one) <= room:
                room -= len(one)
                back.appendleft(one)
        return _aligned(nbytes) if found is None else found

    def close(self) -> None:
        """Let go of what is here."""
        self._back.clear()


def _aligned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Return new memory that begins on a line of the cache, as torch's does."""
    raw = np.empty(nbytes + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + nbytes]
