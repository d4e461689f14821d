"""A reading end whose tensors are in the writer's ring: no copy, until they are taken back.

What `peek` returns may be used until `take_back`, which the program calls behind the last step that
can have to do with it (`compiled_dag.lifetimes`). Kernels that were enqueued by then are waited for
as copies are: the slot's event is recorded behind them.

User code that keeps a view for longer is not found out by what it looks like (a slice, something
that autograd saved), but by the memory's being in use still. Then that memory is left to it, as
`ring` says, and this reader takes copies from then on, since its user goes on doing so, as a rule.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from compiled_dag.channel import tensor as tensors
from compiled_dag.cuda.reader import CudaReader
from compiled_dag.cuda.ring import offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.channel.tensor import Look
    from compiled_dag.cuda.ring import Seat


class ViewReader(CudaReader):
    """Reads tensors where they are."""

    def __init__(self, seat: Seat, participant: int, label: str) -> None:
        """Open a reading end; see `CudaReader`."""
        super().__init__(seat, participant, label)
        self._copies = False
        self._awaited: int | None = None
        """The use that the current stream has to wait for before its first use."""

    def _copy(self, use: int, generation: int, looks: Sequence[Look]) -> list[torch.Tensor]:
        if self._copies:
            return super()._copy(use, generation, looks)
        try:
            start, nbytes, loan = self.ring.lend(use, generation)
        except BaseException:
            self.ring.pass_over(use)
            raise
        if self._seat.receive is None:
            self.ring.await_ready(use, self._device.stream())
        else:
            self._awaited = use
        flat = self._device.view(start, nbytes, loan)
        places, _ = offsets([tensors.nbytes_of(look) for look in looks])
        return [
            tensors.within(flat, place, look) for place, look in zip(places, looks, strict=True)
        ]

    def arrive(self) -> None:
        """Have the current stream wait for the writer's copies, or for our own."""
        use, self._awaited = self._awaited, None
        if use is None:
            super().arrive()
            return
        with self._calling:
            self.ring.await_ready(use, self._device.stream())

    def take_back(self) -> None:
        """Give the slot back behind all that the current stream has to do by now."""
        with self._calling:
            if not self.ring.take_back(self._device.stream()):
                self._take_copies()

    def _take_copies(self) -> None:
        self._copies = True
        node = self.spec.transport.node or self.spec.label
        text = (
            f"{self._label} keeps a view of what {node} made, hinted views=True, after the method "
            "that got it has returned. It stays as it is, in memory that the ring has given up "
            f"for it, and {self._label} gets copies from now on. Keep tensor.clone(), or leave "
            "views out"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=1)
