"""Small tensors that look like the last ones, in a third of the time: all that can be is prepared.

An allreduce of a few numbers is one meeting, and most of what it costs is Python: finding out what
the tensor is like, who needs memory, which piece goes where. Most graphs bring the same dtype and
shape to an operation every time. Then one call of torch tells that a tensor is what it was
(`numpy()` refuses whatever needs more care), one copy lays it down, one or two calls of numpy make
the result.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from collective.arithmetic import combine_all, quiet

if TYPE_CHECKING:
    from collective.exchange import Meetings, Plan

_FRESH_BYTES: Final = 4096
"""Up to here every step of a sum goes into an array of its own: numpy takes 0.3 us for one number,
but 0.8 us if it is to be put where it came from."""
_OWN_BYTES: Final = 16 * 1024
"""From here on it pays not to read what this rank has laid itself: see `collective.exchange`."""


class SmallShortcut:
    """One rank's way of doing one operation with tensors of one dtype and shape."""

    __slots__ = (
        "_combine",
        "_divisor",
        "_dtype",
        "_fresh",
        "_meetings",
        "_mine",
        "_own",
        "_quiet",
        "_rows",
        "_shape",
        "_shape_of_result",
        "_side",
        "_table",
    )

    def __init__(
        self,
        plan: Plan,
        meetings: Meetings,
        shape: tuple[int, ...],
        shape_of_result: tuple[int, ...] | None,
        divisor: int,
        own: int | None,
    ) -> None:
        """Prepare.

        Args:
            plan: The operation's, of one piece, with numpy.
            meetings: How the ranks meet.
            shape: Of the tensors that are brought.
            shape_of_result: Of what this rank gets; None if it gets nothing.
            divisor: What to divide the result by.
            own: Which row is as well taken from what this rank brings, if one is.
        """
        self._meetings = meetings
        self._mine = [mine.reshape(shape) for mine in plan.mine]
        self._shape = shape
        self._shape_of_result = shape_of_result
        self._dtype = self._mine[0].dtype
        self._combine = plan.combine
        self._divisor = divisor
        self._table = plan.table
        nbytes = self._mine[0].nbytes
        rows = [list(rows) for rows in plan.rows]
        self._fresh = False
        if plan.combine is not None and shape_of_result is not None:
            self._fresh = len(rows[0]) > 1 and nbytes <= _FRESH_BYTES
            # Of arrays without dimensions numpy makes numbers, which are no memory.
            shape_of_rows = shape_of_result or (1,)
            rows = [[row.reshape(shape_of_rows) for row in side] for side in rows]
        self._rows = rows
        self._side = 0
        """Where the last tensor was laid."""
        self._quiet = quiet()
        self._own = own if plan.combine is not None and nbytes >= _OWN_BYTES else None

    def lay(self, value: Any) -> bool:
        """Lay a tensor for the meeting to come; False, and nothing done, if it looks different."""
        if value.__class__ is not torch.Tensor:
            return False
        try:
            array = value.numpy()
        except (RuntimeError, TypeError):  # on a GPU, with a gradient, conjugate, sparse, ...
            return False
        if array.dtype is not self._dtype or array.shape != self._shape:
            return False
        side = self._side = 1 - (self._meetings.reached & 1)
        self._mine[side][...] = array
        return True

    def take(self, value: torch.Tensor) -> torch.Tensor | None:
        """Return the result, once the ranks have met; `value` is what was laid."""
        shape = self._shape_of_result
        if shape is None:
            return None
        if self._fresh:
            out = self._quiet(reduce, self._combine, self._rows[self._side])
        else:
            out = np.empty(shape or (1,), self._dtype)
            self._fill(out, value)
        if self._divisor != 1:
            self._quiet(np.true_divide, out, self._divisor, out)
        return torch.from_numpy(out if shape else out.reshape(()))

    def _fill(self, out: Any, value: torch.Tensor) -> None:
        combine, rows = self._combine, self._rows[self._side]
        if combine is None:
            out.reshape(len(rows), -1)[...] = self._table[self._side]
        elif len(rows) == 1:
            out[...] = rows[0]
        else:
            if self._own is not None:
                rows = list(rows)
                rows[self._own] = value.numpy()
            combine_all(combine, rows, out)
