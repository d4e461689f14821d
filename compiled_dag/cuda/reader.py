"""A reading end of a channel whose tensors stay on the GPU.

What `read` returns is the reader's own: tensors are copied out of the ring, so that they may be
kept, changed and given to autograd. Where the copies are on a stream of their own, `arrive` has the
current one wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.channel import codec
from compiled_dag.channel.codec import Kind
from compiled_dag.channel.reader import Reader
from compiled_dag.cuda import writer
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.receiving import ReceivingRing
from compiled_dag.cuda.ring import offsets
from compiled_dag.errors import ChannelClosedError, DeviceError, MemoryCapError
from compiled_dag.outcome import Error, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.channel.tensor import Look
    from compiled_dag.cuda.driver import Stream
    from compiled_dag.cuda.ring import Seat


class DeviceReader(Reader):
    """Says what it means that the GPU fails in reading."""

    def __init__(self, seat: Seat, participant: int, label: str) -> None:
        """Open a reading end.

        Args:
            seat: Where it is.
            participant: Who reads.
            label: What messages call the reader.
        """
        super().__init__(seat.graph, seat.spec, participant, label)
        self._seat = seat
        self._device = seat.device
        self._calling = Translating(seat.device.driver, f"reading {seat.spec.label}")

    def _failure(self, cause: Exception) -> Error:
        """Return what goes in place of a value; raises what is not of this value alone."""
        if isinstance(cause, ChannelClosedError):
            raise cause
        if isinstance(cause, DeviceError):
            if cause.is_lost:
                raise cause
            self._seat.await_news()
        if isinstance(cause, (MemoryCapError, DeviceError)):
            place = Place(method=f"reading {self.spec.label}", actor=self._label)
            return Error.capture(cause, place, execution=self.sequence)
        return super()._failure(cause)


class CudaReader(DeviceReader):
    """Copies tensors out of the channel's ring, and reads the rest as always."""

    def __init__(self, seat: Seat, participant: int, label: str) -> None:
        """Open a reading end.

        Args:
            seat: Where it is.
            participant: Who reads.
            label: What messages call the reader.

        Raises:
            DeviceError: The GPU's events cannot be shared.
        """
        super().__init__(seat, participant, label)
        self.ring = ReceivingRing(seat, participant)
        self._host_device = seat.spec.transport.device
        self.rebuild = self._rebuild

    def _rebuild(self, kind: int, head: bytes, buffers: Sequence[Any]) -> Any:
        if kind not in {Kind.DEVICE, Kind.DEVICE_APART}:
            if self._host_device == "default":
                return codec.decode(kind, head, buffers)
            return codec.decode_onto(self._host_device, kind, head, buffers)
        use, generation, rest = writer.split(head)
        looks, stream = writer.parts(kind, rest)
        with self._calling:
            copies = self._copy(use, generation, looks)
        return copies[0] if stream is None else codec.decode_apart(stream, buffers, copies)

    def _copy(self, use: int, generation: int, looks: Sequence[Look]) -> list[torch.Tensor]:
        ring, device = self.ring, self._device
        own = self._seat.receive
        on = device.stream() if own is None else own
        is_inside = False
        try:
            start = ring.enter(use, generation, on)
            is_inside = True
            copies = [device.new(look, own) for look in looks]
            copy = device.driver.copy
            places, _ = offsets([one.nbytes for one in copies])
            for one, place in zip(copies, places, strict=True):
                if one.nbytes:
                    copy(one.data_ptr(), start + place, one.nbytes, on)
            if own is not None:
                self._hand_over(copies, own)
            return copies
        finally:
            if is_inside:
                ring.leave(use, on)
            else:
                ring.pass_over(use)

    def _hand_over(self, copies: Sequence[torch.Tensor], stream: Stream) -> None:
        """Let the current stream use what another one makes, from `arrive` on."""
        for one in copies:
            self._device.lend(one)
        self._device.driver.record(self.ring.arrived, stream)

    def arrive(self) -> None:
        """Have the current stream wait for the copies of the last message."""
        with self._calling:
            self._device.driver.wait(self._device.stream(), self.ring.arrived)
