"""A reading end in host memory whose tensors are for the GPU.

The GPU copies them straight out of the payload slot, which this process pins, in order with the
stream. The slot is kept, as any value that lives in it keeps it, until they are done: the writer
takes another one meanwhile, so that no host waits. Values under 64 KiB are copied out of their slot
as always: CUDA takes so little over into memory of its own before the call returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compiled_dag.channel import codec
from compiled_dag.channel import tensor as tensors
from compiled_dag.cuda.pins import Pins
from compiled_dag.cuda.reader import DeviceReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.cuda.driver import Event
    from compiled_dag.cuda.ring import Seat
    from compiled_dag.shm.segment import Mapping


class LandingReader(DeviceReader):
    """Has tensors copied to the GPU, and reads the rest as always."""

    def __init__(self, seat: Seat, participant: int, label: str) -> None:
        """Open a reading end; see `DeviceReader`."""
        super().__init__(seat, participant, label)
        self.ring = self._pins = Pins(seat)
        self._where = seat.spec.transport.device
        self._lends_private = True
        self._slot: tuple[Mapping, int, int] | None = None
        """Slot of the message: mapping, offset, size. None if it was copied out."""
        self._landed: list[torch.Tensor] = []
        """Tensors of the message that are on their way to the GPU."""
        self._awaited: Event | None = None
        """What the current stream has to wait for before the first use of these."""
        self.rebuild = self._rebuild

    def _extent(self, where: int) -> Any:
        is_new = where >> 32 not in self._extents
        found = super()._extent(where)
        if is_new:
            self._pins.keep_only(extent.mapping for extent in self._extents.values())
        return found

    def _on_lease(self, kind: int, held: Any, view: memoryview, start: int, *sizes: int) -> Any:
        self._slot = held.mapping, start, len(held)
        try:
            return super()._on_lease(kind, held, view, start, *sizes)
        finally:
            self._slot = None

    def _rebuild(self, kind: int, head: bytes, buffers: Sequence[Any]) -> Any:
        self._awaited = None
        with self._calling:
            self._pins.sweep()
            try:
                return codec.decode_by(self._land, kind, head, buffers)
            finally:
                if self._landed:
                    self._note(buffers)

    def _land(self, header: tensors.Header, buffer: Any) -> torch.Tensor:
        dtype, shape, kind = header
        if (kind if self._where == "default" else self._where) != "cuda":
            is_lent = self._slot is not None and not self._only_reader
            return tensors.from_buffer(header, bytearray(buffer) if is_lent else buffer, "cpu")
        device, own = self._device, self._seat.receive
        made = device.new((dtype, shape), own)
        if not made.nbytes:
            return made
        if self._slot is not None:
            self._pins.pin(*self._slot)
        self._landed.append(made)
        source = np.frombuffer(buffer, np.uint8).ctypes.data
        on = device.stream() if own is None else own
        device.driver.copy(made.data_ptr(), source, made.nbytes, on)
        return made

    def _note(self, buffers: Sequence[Any]) -> None:
        """Keep what tensors are copied from, and have the current stream wait for them later."""
        own, landed, self._landed = self._seat.receive, self._landed, []
        if own is None:
            self._pins.note(self._device.stream(), buffers)
            return
        for one in landed:
            self._device.lend(one)
        self._awaited = self._pins.note(own, buffers)

    def arrive(self) -> None:
        """Have the current stream wait for the copies of the last message."""
        event, self._awaited = self._awaited, None
        if event is not None:
            with self._calling:
                self._device.driver.wait(self._device.stream(), event)
