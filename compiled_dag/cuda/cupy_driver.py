"""CUDA through cupy's bindings of the runtime library.

The calls are those of `cupy.cuda.runtime` in cupy 13 and 14. Three of their habits matter here:
``eventQuery`` returns CUDA's status instead of raising it, and leaves it as the thread's last
error; and the 16 bytes of a GPU's UUID end at their first zero byte in ``getDeviceProperties``,
which is why UUIDs come from torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from compiled_dag.cuda.driver import Event, Pointer, Stream

_NOT_READY: Final = 600
_COPY_ANY: Final = 4  # cudaMemcpyDefault: the addresses say what they are
_LAZY_PEER_ACCESS: Final = 1  # cudaIpcMemLazyEnablePeerAccess, the only flag there is
_NO_TIMING: Final = 2  # cudaEventDisableTiming
_FOR_PROCESSES: Final = 2 | 4  # cudaEventDisableTiming | cudaEventInterprocess


class CupyDriver:
    """The one implementation for real devices."""

    def __init__(self) -> None:
        """Load cupy.

        Raises:
            ImportError: cupy is not installed, or not for this CUDA.
        """
        from cupy.cuda import runtime  # noqa: PLC0415  half a second, and an extra

        self._runtime: Any = runtime
        self.error_type: type[Exception] = runtime.CUDARuntimeError
        # The hot ones, without a call in between.
        self.record = runtime.eventRecord
        self.wait = runtime.streamWaitEvent
        self._copy = runtime.memcpyAsync
        self.current = runtime.getDevice

    def select(self, index: int) -> None:
        """See `Driver`."""
        self._runtime.setDevice(index)
        self._runtime.memGetInfo()  # handles of events need a context on the calling thread

    def free_bytes(self) -> int:
        """See `Driver`."""
        return int(self._runtime.memGetInfo()[0])

    def allocate(self, nbytes: int) -> Pointer:
        """See `Driver`."""
        return int(self._runtime.malloc(nbytes))

    def free(self, pointer: Pointer) -> None:
        """See `Driver`."""
        self._runtime.free(pointer)

    def export_memory(self, pointer: Pointer) -> bytes:
        """See `Driver`."""
        return bytes(self._runtime.ipcGetMemHandle(pointer))

    def import_memory(self, handle: bytes) -> Pointer:
        """See `Driver`."""
        return int(self._runtime.ipcOpenMemHandle(handle, _LAZY_PEER_ACCESS))

    def close_memory(self, pointer: Pointer) -> None:
        """See `Driver`."""
        self._runtime.ipcCloseMemHandle(pointer)

    def register(self, address: int, nbytes: int) -> None:
        """See `Driver`."""
        self._runtime.hostRegister(address, nbytes, 0)

    def unregister(self, address: int) -> None:
        """See `Driver`."""
        self._runtime.hostUnregister(address)

    def make_event(self, *, is_shared: bool) -> Event:
        """See `Driver`."""
        flags = _FOR_PROCESSES if is_shared else _NO_TIMING
        return int(self._runtime.eventCreateWithFlags(flags))

    def destroy_event(self, event: Event) -> None:
        """See `Driver`."""
        self._runtime.eventDestroy(event)

    def export_event(self, event: Event) -> bytes:
        """See `Driver`."""
        return bytes(self._runtime.ipcGetEventHandle(event))

    def import_event(self, handle: bytes) -> Event:
        """See `Driver`."""
        return int(self._runtime.ipcOpenEventHandle(handle))

    def is_done(self, event: Event) -> bool:
        """See `Driver`."""
        status = self._runtime.eventQuery(event)
        if not status:
            return True
        try:
            # Takes the last error back and raises it. Where cupy and torch have one runtime library
            # (conda's) torch would find it when it launches its next kernel.
            self._runtime.check_status(status)
        except self.error_type:
            if status != _NOT_READY:
                raise
        return False

    def copy(self, target: Pointer, source: Pointer, nbytes: int, stream: Stream) -> None:
        """See `Driver`."""
        self._copy(target, source, nbytes, _COPY_ANY, stream)
