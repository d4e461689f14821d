"""A writing end in host memory whose tensors may be on the GPU.

The GPU copies them straight into the payload slot, which this process pins; all tensors of a value
at once. The host waits for these copies before it publishes, since readers, who may have no GPU,
could not: it is the one wait of its kind, and the end of the graph ends it.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from compiled_dag.channel import layout as at
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.checked import CheckedWriter
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.pins import Pins
from compiled_dag.cuda.ring import looking

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.channel.body import Body
    from compiled_dag.channel.codec import Encoded
    from compiled_dag.channel.pickling import Buffer
    from compiled_dag.cuda.ring import Seat
    from compiled_dag.outcome import Place


class StagingWriter(CheckedWriter):
    """Has what is on the GPU copied into the message, and writes the rest as always."""

    def __init__(self, seat: Seat, place: Place, *, slot_bytes: int, cap_bytes: int | None) -> None:
        """Open the writing end.

        Args:
            seat: Where it is.
            place: Where its values are made: what errors are of.
            slot_bytes: First capacity of a payload slot.
            cap_bytes: Cap on the payload memory of the whole graph, or None.
        """
        super().__init__(seat.graph, seat.spec, place, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
        self._seat = seat
        self.ring = self._pins = Pins(seat)
        self._pool.on_punch = self._pins.drop
        self._holds = seat.device.holds
        self._calling = Translating(seat.device.driver, f"writing {seat.spec.label}")
        self._site = looking()
        self._sources: dict[int, tuple[Any, torch.Tensor]] = {}
        """By id of what stands for its bytes, that, and a tensor of the value that is encoded."""

    def _encode_kept(self, value: Any) -> Encoded:
        self._sources = {}
        return self._promises.encode(value, self._to_bytes)

    def _to_bytes(self, tensor: torch.Tensor) -> tuple[tensors.Header, Any]:
        """Return header and buffer; the buffer of a tensor on the GPU is never looked into."""
        if not self._holds(tensor):
            return tensors.to_bytes(tensor)
        sent = tensors.to_send(tensor)
        header = (str(sent.dtype)[6:], tuple(sent.shape), "cuda")
        if not sent.nbytes:
            return header, b""
        stand_in = (ctypes.c_ubyte * sent.nbytes).from_address(sent.data_ptr())
        self._sources[id(stand_in)] = stand_in, sent
        return header, stand_in

    def stage_encoded(self, encoded: Encoded) -> None:
        """Write a value that is encoded already, as `Writer.stage_encoded` does."""
        # Copies into memory that is not pinned would have the host wait inside of CUDA.
        self._most_inline = -1 if self._sources else at.INLINE
        try:
            super().stage_encoded(encoded)
        finally:
            self._sources = {}

    def _copy_in(
        self, target: memoryview, body: Body, head: bytes, buffers: Sequence[Buffer]
    ) -> None:
        if not self._sources:
            super()._copy_in(target, body, head, buffers)
            return
        assert self._taken is not None, "it is in a payload slot"
        extent, slot, _ = self._taken
        address = extent.mapping.address + extent.slot(slot)
        with self._calling:
            try:
                self._pins.pin(extent.mapping, extent.slot(slot), extent.capacity)
            except BaseException:
                self.abandon()  # nothing is under way to it
                raise
            stream, copy = self._seat.device.stream(), self._seat.device.driver.copy
            try:
                target[: len(body.table)] = body.table
                target[body.head] = head
                for place, buffer in zip(body.buffers, buffers, strict=True):
                    source = self._sources.get(id(memoryview(buffer).obj))
                    if source is None:
                        target[place] = buffer
                    else:
                        to = address + place.start
                        copy(to, source[1].data_ptr(), place.stop - place.start, stream)
            finally:
                done = self._pins.note(stream, self._sources)
            self._seat.await_gpu(done, self._site)
            self._pins.sweep()
