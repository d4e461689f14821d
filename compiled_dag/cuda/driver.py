"""The CUDA calls that device channels make, as a Protocol, and what their errors mean.

`cupy_driver` is the implementation; tests have one in host memory. Pointers, streams and events are
the driver's own handles, as integers: the same that torch uses, since both share the device's
primary context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from compiled_dag.errors import DeviceError, MemoryCapError

if TYPE_CHECKING:
    from types import TracebackType

Pointer: TypeAlias = int
Event: TypeAlias = int
Stream: TypeAlias = int

FIRST: Final = 0
"""This process's GPU among those it sees: the first one, which is what its actor was given."""
HANDLE_BYTES: Final = 64
"""Of an exported allocation or event."""
GRANULE: Final = 2 << 20
"""Rings are whole multiples of it: smaller allocations share a block with others when exported."""

_OUT_OF_MEMORY: Final = 2
_LOST: Final = frozenset({214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 810, 911})
"""What a context does not survive: illegal accesses, failed launches, device asserts, ..."""


class Driver(Protocol):
    """One process's way to CUDA. Every call is for the thread's current device (`Selecting`).

    Calls raise `error_type`, whose ``status`` is CUDA's error number.
    """

    error_type: type[Exception]

    def select(self, index: int) -> None:
        """Make a device current on this thread, and see that it has a context."""
        ...

    def current(self) -> int:
        """Return which device is current on this thread."""
        ...

    def free_bytes(self) -> int:
        """Return how much device memory is free."""
        ...

    def allocate(self, nbytes: int) -> Pointer:
        """Return new device memory, which can be exported (``cudaMalloc``)."""
        ...

    def free(self, pointer: Pointer) -> None:
        """Free what `allocate` returned. Only when no other process has it open."""
        ...

    def export_memory(self, pointer: Pointer) -> bytes:
        """Return the handle by which another process opens an allocation."""
        ...

    def import_memory(self, handle: bytes) -> Pointer:
        """Open another process's allocation, enabling peer access if it is on another device."""
        ...

    def close_memory(self, pointer: Pointer) -> None:
        """Close what `import_memory` returned."""
        ...

    def register(self, address: int, nbytes: int) -> None:
        """Pin memory of the host, so that `copy` is asynchronous with it too."""
        ...

    def unregister(self, address: int) -> None:
        """Undo `register`, before the memory is unmapped."""
        ...

    def make_event(self, *, is_shared: bool) -> Event:
        """Return a new event, to be exported or not; it counts as done until recorded."""
        ...

    def destroy_event(self, event: Event) -> None:
        """Destroy an event, made here or imported."""
        ...

    def export_event(self, event: Event) -> bytes:
        """Return the handle by which another process opens an event."""
        ...

    def import_event(self, handle: bytes) -> Event:
        """Open another process's event."""
        ...

    def record(self, event: Event, stream: Stream) -> None:
        """Have an event be done when all that is in `stream` now is."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Have what comes into `stream` from now on wait for the latest `record` of an event."""
        ...

    def is_done(self, event: Event) -> bool:
        """Tell whether the latest `record` of an event is done."""
        ...

    def copy(self, target: Pointer, source: Pointer, nbytes: int, stream: Stream) -> None:
        """Copy between any two memories, in order with `stream`; returns at once."""
        ...


class Selecting:
    """A context in which this process's GPU, its first, is the thread's current device.

    User code may have made another one current, which is given back to it. Memory and events would
    be made there, and the default stream would be that one's: its handle is the same on all.
    May be used again, not inside of itself.
    """

    __slots__ = ("_driver", "_other")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._other = FIRST

    def __enter__(self) -> None:
        """Begin."""
        self._other = self._driver.current()
        if self._other != FIRST:
            self._driver.select(FIRST)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._other != FIRST:
            self._driver.select(self._other)


class Translating(Selecting):
    """The same, where a driver's errors become this project's."""

    __slots__ = ("_what",)

    def __init__(self, driver: Driver, what: str) -> None:
        """Make one.

        Args:
            driver: Whose errors.
            what: What is being done: how the messages begin.
        """
        super().__init__(driver)
        self._what = what

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        if isinstance(error, self._driver.error_type):
            raise translated(error, self._what) from error


def translated(error: Exception, what: str) -> DeviceError | MemoryCapError:
    """Return this project's error for one of a driver's.

    Args:
        error: The driver's.
        what: What was being done.
    """
    status = int(getattr(error, "status", 0))
    if status == _OUT_OF_MEMORY:
        return MemoryCapError(f"{what}: the GPU has no memory left for it ({error})")
    is_lost = status in _LOST
    why = f"the CUDA context is lost, {what}" if is_lost else what
    found = DeviceError(f"{why}: {error}")
    found.status, found.is_lost = status, is_lost
    return found
