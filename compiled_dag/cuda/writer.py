"""The writing end of a channel whose tensors stay on the GPU."""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel import codec
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.checked import CheckedWriter
from compiled_dag.channel.codec import Encoded, Kind
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.sending import SendingRing
from compiled_dag.errors import DeviceError

if TYPE_CHECKING:
    import torch

    from compiled_dag.cuda.ring import Seat
    from compiled_dag.outcome import Place

PREFIX: Final = struct.Struct("QQ")
"""Begins the head of a message with tensors on the GPU: use and generation of the ring."""
_CACHE_LIMIT: Final = 512


class CudaWriter(CheckedWriter):
    """Copies what is on the GPU into the channel's ring, and sends the rest as always."""

    def __init__(self, seat: Seat, place: Place, *, slot_bytes: int, cap_bytes: int | None) -> None:
        """Open the writing end, and allocate its ring.

        Args:
            seat: Where it is.
            place: Where its values are made: what errors are of.
            slot_bytes: First capacity of a slot, here and in host memory.
            cap_bytes: Cap on the payload memory of the whole graph, or None.

        Raises:
            MemoryCapError: There is no GPU memory for the ring.
            DeviceError: The GPU's memory cannot be shared.
        """
        super().__init__(seat.graph, seat.spec, place, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
        self._seat = seat
        self.ring = SendingRing(seat, slot_bytes, cap_bytes)
        self._holds = seat.device.holds
        self._calling = Translating(seat.device.driver, f"writing {seat.spec.label}")
        self._in_ring = False
        """Whether the staged message has tensors in the ring."""
        self._looks: dict[tuple[Any, Any], bytes] = {}

    def publish(self) -> None:
        """Make the staged value visible and wake the readers."""
        super().publish()
        if self._in_ring:
            self.ring.sent()

    def _encode_kept(self, value: Any) -> Encoded:
        self._in_ring = False
        if not tensors.is_tensor(value.__class__) or not self._is_whole(value):
            return self._encode_parts(value)
        self._promises.check_one(value)
        head = self._send([value]) + self._look_of(value)
        return Encoded(Kind.DEVICE, head, [], ())

    def _is_whole(self, value: torch.Tensor) -> bool:
        """Tell whether a tensor on its own is in the GPU's memory."""
        return tensors.is_plain(value) and self._holds(value)

    def _encode_parts(self, value: Any) -> Encoded:
        encoded, found = self._promises.encode_apart(value, self._is_whole)
        if not found:
            return encoded
        return encoded._replace(kind=Kind.DEVICE_APART, head=self._send(found) + encoded.head)

    def _send(self, found: list[Any]) -> bytes:
        sent = [tensors.to_send(one) for one in found]
        try:
            with self._calling:
                generation = self.ring.send(sent)
        except DeviceError as error:
            if not error.is_lost:
                self._seat.await_news()
            raise
        self._in_ring = True
        return PREFIX.pack(self.ring.use, generation)

    def _look_of(self, tensor: torch.Tensor) -> bytes:
        """Return what a tensor looks like, pickled; the same ones repeat for ever in a graph."""
        key = (tensor.dtype, tensor.shape)
        found = self._looks.get(key)
        if found is None:
            if len(self._looks) >= _CACHE_LIMIT:
                self._looks.clear()
            found = self._looks[key] = pickle.dumps(tensors.look(tensor), 5)
        return found

    def stage_encoded(self, encoded: Encoded) -> None:
        """Write a value that is encoded already, as `Writer.stage_encoded` does."""
        if encoded.kind not in {Kind.DEVICE, Kind.DEVICE_APART}:
            self._in_ring = False
        super().stage_encoded(encoded)

    def capture(self, value: Any) -> Any:
        """The driver captures inputs, and is no end of a ring."""
        raise AssertionError(f"{self.spec.label} is no input: {value.__class__}")


def split(head: bytes) -> tuple[int, int, bytes]:
    """Return use and generation that a head begins with, and the rest of it."""
    use, generation = PREFIX.unpack_from(head)
    return use, generation, head[PREFIX.size :]


def parts(kind: int, rest: bytes) -> Any:
    """Return what tensors look like, and the stream of the value without them, if there is one."""
    if kind == Kind.DEVICE:
        return (codec.parsed(rest),), None
    return codec.split_apart(rest)
