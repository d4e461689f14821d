"""What a ring is in: GPU memory that others open, or pinned host memory.

The second is for GPUs whose memory cannot be shared: MIG instances, sandboxes, no peer access.
It lies in the graph's segment, above the channel's payload slots, and every process registers it
with CUDA, so that copies to and from it are asynchronous and read and write it directly.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Protocol

from compiled_dag.channel.layout import REGION
from compiled_dag.cuda.driver import GRANULE, HANDLE_BYTES
from compiled_dag.errors import MemoryCapError
from compiled_dag.shm.segment import require_memory, round_up

if TYPE_CHECKING:
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Pointer
    from compiled_dag.shm.segment import Mapping

_PLACE: Final = struct.Struct("QQ")
_HALF: Final = REGION // 2


def check_cap(
    graph: GraphSegment, spec: ChannelSpec, nbytes: int, what: str, cap_bytes: int | None
) -> None:
    """Refuse memory for GPUs beyond the cap on what a graph's channels may take in all.

    Args:
        graph: The graph.
        spec: The channel that wants more.
        nbytes: How much.
        what: What for.
        cap_bytes: The cap, or None.

    Raises:
        MemoryCapError: It does not allow it.
    """
    if cap_bytes is None:
        return
    taken = sum(graph.reserved_bytes().values()) + sum(graph.ring_bytes().values())
    if taken + nbytes > cap_bytes:
        msg = (
            f"channel {spec.label} wants {nbytes} bytes for {what}, the graph has taken {taken}, "
            f"and it is capped at _max_memory_bytes={cap_bytes}. Raise the cap, or send less"
        )
        raise MemoryCapError(msg)


class RingMemory(Protocol):
    """How to make and to open the memory of a ring. Raises the driver's errors."""

    def make(self, nbytes: int) -> tuple[Pointer, bytes]:
        """Return new memory, and the handle by which readers open it.

        Raises:
            MemoryCapError: The host has no memory left for it.
        """
        ...

    def drop(self, pointer: Pointer) -> None:
        """Free what `make` returned."""
        ...

    def open(self, handle: bytes) -> Pointer:
        """Open what another process has made."""
        ...

    def close(self, pointer: Pointer) -> None:
        """Close what `open` returned."""
        ...


class DeviceMemory:
    """The writer's GPU memory."""

    def __init__(self, device: Device) -> None:
        self._device = device
        driver = device.driver
        self.drop, self.open, self.close = driver.free, driver.import_memory, driver.close_memory

    def make(self, nbytes: int) -> tuple[Pointer, bytes]:
        """See `RingMemory`."""
        driver, nbytes = self._device.driver, round_up(nbytes, GRANULE)
        try:
            pointer = driver.allocate(nbytes)
        except driver.error_type:
            self._device.release_cached()  # torch keeps what it has freed
            pointer = driver.allocate(nbytes)
        try:
            return pointer, driver.export_memory(pointer)
        except BaseException:
            driver.free(pointer)
            raise


class PinnedMemory:
    """Memory of the host that the GPU reads and writes by itself."""

    def __init__(self, device: Device, graph: GraphSegment, spec: ChannelSpec) -> None:
        self._driver = device.driver
        self._segment = graph.segment
        self._what = f"the ring of channel {spec.label}"
        self._end = graph.layout.channels[spec.index].region + _HALF
        self._mappings: dict[Pointer, tuple[Mapping, int]] = {}
        """What is registered, and where in the segment that is."""

    def make(self, nbytes: int) -> tuple[Pointer, bytes]:
        """See `RingMemory`."""
        nbytes = round_up(nbytes)
        require_memory(nbytes, self._what)
        pointer = self._register(self._end, nbytes)
        handle = _PLACE.pack(self._end, nbytes).ljust(HANDLE_BYTES, b"\0")
        self._end += nbytes
        return pointer, handle

    def drop(self, pointer: Pointer) -> None:
        """See `RingMemory`."""
        mapping, offset = self._mappings[pointer]
        self.close(pointer)
        self._segment.punch(offset, mapping.size)

    def open(self, handle: bytes) -> Pointer:
        """See `RingMemory`."""
        return self._register(*_PLACE.unpack_from(handle))

    def close(self, pointer: Pointer) -> None:
        """See `RingMemory`."""
        self._driver.unregister(pointer)
        del self._mappings[pointer]

    def _register(self, offset: int, nbytes: int) -> Pointer:
        mapping = self._segment.map(offset, nbytes)
        self._driver.register(mapping.address, nbytes)
        self._mappings[mapping.address] = mapping, offset
        return mapping.address
