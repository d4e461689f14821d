"""The reading end of a channel.

Values under 64 KiB are copied out. Larger ones are leased: what `read` returns lives in the slot
itself, read-only for numpy arrays. A tensor is leased writable if this process is the only reader
(nobody can see the change) and is a private copy otherwise.
"""

from __future__ import annotations

import time
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from compiled_dag.channel import layout as at
from compiled_dag.channel.body import body_in
from compiled_dag.channel.codec import Kind, decode
from compiled_dag.channel.interface import ChannelInterface
from compiled_dag.channel.lease import LEASE_BYTES, lease, lease_type
from compiled_dag.channel.tensor import NoGpuError
from compiled_dag.channel.warm import LARGE_BYTES, WarmBytes
from compiled_dag.errors import DeserializationError
from compiled_dag.outcome import Error, Place
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.shm.segment import Mapping

_INT, _NONE, _FLOAT = int(Kind.INT), int(Kind.NONE), int(Kind.FLOAT)
_KIND_MASK: Final = 0xFF
_FIRST: Final = (0,)


class _Extent:
    """A run of payload slots (reader's side)."""

    __slots__ = ("first_slot", "lease_type", "mapping", "release", "stride", "view", "words")

    def __init__(self, graph: GraphSegment, row: int, position: int, num_readers: int) -> None:
        offset, capacity, slots = graph.words[row : row + 3]
        self.stride = at.stride(capacity)
        self.first_slot = at.extent_head(num_readers, slots, capacity)
        self.mapping: Mapping = graph.segment.map(offset, self.first_slot + slots * self.stride)
        self.view = self.mapping.view()
        self.words = self.view[: at.words_bytes(num_readers, slots)].cast("Q")
        self.release = position * slots
        self.lease_type = lease_type(capacity)


class Reader(ChannelInterface):
    """One participant's end of a channel; reads every message once, in order."""

    def __init__(
        self, graph: GraphSegment, spec: at.ChannelSpec, participant: int, label: str = "driver"
    ) -> None:
        """Open the reading end.

        Args:
            graph: The graph's segment.
            spec: The channel.
            participant: Who reads.
            label: What messages call the reader.
        """
        self.spec = spec
        self.graph = graph
        place = graph.layout.channels[spec.index]
        position = spec.readers.index(participant)
        self._place = place
        self._position = position
        self._label = label
        self._only_reader = self._lends_private = len(spec.readers) == 1
        self.words = graph.words
        self._signed = graph.view.cast("q")
        self._doubles = graph.view.cast("d")
        self._bases = [(place.ring + slot * at.SLOT) // 8 for slot in range(spec.depth)]
        self._depth = spec.depth
        self.sequence_word = place.control // 8 + at.SEQUENCE
        self.ack_word = place.reader(position) // 8
        self.site = Site()
        """For the waits on this channel."""
        self.sequence = 0
        """Messages read so far; the next one is there when the shared word is larger."""
        self.stamps: list[int] | None = None
        """For the trace: where to note when the taking of a value begins that takes time."""
        self.arrived = 0
        """Index in it."""
        self._extents: dict[int, _Extent] = {}
        self._warm: WarmBytes | None = None
        """Memory of private copies of large tensors."""
        self.rebuild = decode
        """Turns kind, head and buffers into a value."""

    def ready(self) -> bool:
        """Tell whether the next message is there."""
        return self.words[self.sequence_word] != self.sequence

    def read(self) -> Any:
        """Take the next message, which must be there: a value or an `Error`."""
        value = self.peek()
        self.advance()
        return value

    def advance(self) -> None:
        """Be done with the message that `peek` returned."""
        sequence = self.sequence = self.sequence + 1
        self.words[self.ack_word] = sequence

    def peek(self) -> Any:
        """Return the next message, which must be there, and stay in front of it.

        Where an interrupt can strike, the value is stored before `advance`: then it is never lost.
        A value that cannot be rebuilt comes back as an `Error` too: it is this reader's alone.
        """
        words = self.words
        base = self._bases[self.sequence % self._depth]
        if not STORES_STAY_IN_ORDER:
            fence()  # the sequence was read before anything it announces
        tag = words[base]
        if tag == _INT:
            value: Any = self._signed[base + 1]
        elif tag == _NONE:
            value = None
        elif tag == _FLOAT:
            value = self._doubles[base + 1]
        else:
            try:
                value = self._decode(base, tag)
            except Exception as error:  # noqa: BLE001  unpickling runs user code
                value = self._failure(error)
        return value

    def arrive(self) -> None:
        """Do what has to be done before the first use of what `peek` returned last: nothing."""

    def take_back(self) -> None:
        """Do what has to be done once nobody may use what `peek` returned last: nothing."""

    def skip(self) -> None:
        """Pass over the next message, which must be there, without rebuilding its value."""
        words = self.words
        base = self._bases[self.sequence % self._depth]
        if words[base] > _KIND_MASK:
            extent, slot = self._extent(words[base + 4])
            extent.words[extent.release + slot] = words[base + 5]
        self.advance()

    def _decode(self, base: int, tag: int) -> Any:
        if self.stamps is not None:
            self.stamps[self.arrived] = time.monotonic_ns()
        words = self.words
        head_bytes, num_buffers, size = words[base + 1], words[base + 2], words[base + 3]
        if tag <= _KIND_MASK:
            start = base * 8 + at.DESCRIPTOR
            return self._copy_out(tag, self.graph.view, start, head_bytes, num_buffers)
        extent, slot = self._extent(words[base + 4])
        use = words[base + 5]
        start = extent.first_slot + slot * extent.stride
        word = extent.release + slot
        tag &= _KIND_MASK
        whole = extent.view, start, head_bytes, num_buffers
        held = None
        if size >= LEASE_BYTES and num_buffers:
            held = lease(extent.lease_type, extent.mapping, start, None, word, use)
        try:
            if held is None:
                value = self._copy_out(tag, *whole)
            else:
                value = self._on_lease(tag, held, *whole)
        except Exception:  # what its failure still holds pins the slot, too
            self._let_go(held, extent, word, use)
            raise
        # Last, and without a call: Ctrl-C before leaves a message that is read again.
        if held is None:
            extent.words[word] = use
        else:
            held.words = extent.words
        return value

    @staticmethod
    def _let_go(held: Any, extent: _Extent, word: int, use: int) -> None:
        """Have a slot be free, once nothing is left of what lies in it."""
        if held is None:
            extent.words[word] = use
        else:
            held.words = extent.words

    def _extent(self, where: int) -> tuple[_Extent, int]:
        index, slot = where >> 32, where & 0xFFFFFFFF
        extent = self._extents.get(index)
        if extent is None:
            table = (self._place.control + at.EXTENT_TABLE) // 8
            for old in [i for i in self._extents if self.words[table + i * at.EXTENT_WORDS + 3]]:
                del self._extents[old]  # outgrown: views that still live keep the mapping
            row = table + index * at.EXTENT_WORDS
            extent = _Extent(self.graph, row, self._position, len(self.spec.readers))
            self._extents[index] = extent
        return extent, slot

    def _copy_out(
        self, kind: int, view: memoryview, start: int, head_bytes: int, num_buffers: int
    ) -> Any:
        """Rebuild a value from private copies of its buffers; the slot is free afterwards."""
        if not num_buffers:
            return self.rebuild(kind, bytes(view[start : start + head_bytes]), ())
        body = body_in(head_bytes, bytes(view[start : start + 8 * num_buffers]))
        whole = view[start : start + body.size]
        parts: list[Any] = list(map(bytes, map(whole.__getitem__, body.buffers)))
        for index in body.private:
            parts[index] = bytearray(parts[index])
        return self.rebuild(kind, bytes(whole[body.head]), parts)

    def _on_lease(
        self, kind: int, held: Any, view: memoryview, start: int, head_bytes: int, num_buffers: int
    ) -> Any:
        """Rebuild a value over the slot itself; `held` releases it when the last view dies."""
        body = body_in(head_bytes, bytes(view[start : start + 8 * num_buffers]))
        if self._lends_private and body.private == _FIRST and num_buffers == 1:
            place = body.buffers[0]
            whole = np.ndarray((place.stop - place.start,), np.uint8, held, place.start)
            return self.rebuild(kind, bytes(view[start + 8 : start + 8 + head_bytes]), [whole])
        # By way of pickle: a memoryview of a ctypes array itself has a format that cannot be cast.
        shared = PickleBuffer(held).raw().toreadonly()
        parts: list[Any] = list(map(shared.__getitem__, body.buffers))
        for index in body.private:
            place = body.buffers[index]
            if self._lends_private:
                parts[index] = np.ndarray((len(parts[index]),), np.uint8, held, place.start)
            else:
                parts[index] = self._private_copy(parts[index])
        return self.rebuild(kind, bytes(shared[body.head]), parts)

    def _private_copy(self, data: memoryview) -> Any:
        """Return bytes of this process's own, in memory that was used before where that counts."""
        nbytes = len(data)
        if nbytes < LARGE_BYTES:
            return bytearray(data)
        if self._warm is None:
            self._warm = WarmBytes()
        copy = self._warm.lend(nbytes, kept_bytes=2 * nbytes)
        copy[:] = data
        return copy

    def _failure(self, cause: Exception) -> Error:
        error: Exception
        if isinstance(cause, NoGpuError):
            error = RuntimeError(self._why_no_gpu(cause))
        else:
            text = f"{self.spec.label} sent a value that cannot be rebuilt here: {cause!r}"
            error = DeserializationError(text)
        error.__cause__ = cause
        return Error.capture(error, Place(method=f"reading {self.spec.label}", actor=self._label))

    def _why_no_gpu(self, cause: NoGpuError) -> str:
        transport = self.spec.transport
        node, writer = transport.node or self.spec.label, transport.writer or "its writer"
        if transport.device == "cuda":
            what = f"{node} is hinted device={transport.device!r}"
            if self._label in transport.fakes:
                return (
                    f"{what}, and the GPU of {self._label}, which reads it, is fake: this machine "
                    "has none that is visible, so no tensor can land there. Leave device out (a "
                    "tensor stays on its sender's kind of device), or choose it by "
                    "torch.cuda.is_available(), or run where there is a GPU"
                )
            return (
                f"{what}, and {self._label}, which reads it, sees no GPU. Give the reader "
                "num_gpus, or hint device='cpu'"
            )
        return (
            f"{node} made a tensor on {cause.kind!r} on {writer}, and {self._label}, which reads "
            "it, sees no GPU. Give the reader num_gpus, or hint the node with "
            "with_tensor_transport(device='cpu')"
        )
