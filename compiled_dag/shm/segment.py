"""Anonymous shared memory: one memfd, mapped piece by piece.

A segment has no name. It is passed on as a file descriptor and is gone with the last process that
holds it, also after SIGKILL. Its size is fixed (sealed) when it is made and may be far larger than
memory: pages cost something only once touched, and `punch` gives them back.

Mappings are made with libc, not with the `mmap` module, because that one keeps a duplicate of the
descriptor for every mapping and a large graph would run out of descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
from pathlib import Path
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import MemoryCapError
from compiled_dag.interrupts import finalizer

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE: Final = os.sysconf("SC_PAGE_SIZE")

HUGE: Final = 2 << 20
"""Bytes of a huge page, on x86-64 and where pages of aarch64 have 4 KiB."""

_F_ADD_SEALS, _SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1033, 1, 2, 4
_PROT_NONE, _PROT_READ_WRITE = 0, 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
_MADV_POPULATE_WRITE = 23  # Linux 5.14; older kernels refuse it and pages fault in one by one
_MADV_COLLAPSE = 25  # Linux 6.1, likewise
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 3

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_munmap = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_fallocate = _libc.fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def round_up(nbytes: int, unit: int = PAGE) -> int:
    """Return the smallest multiple of `unit` that is at least `nbytes`."""
    return -(-nbytes // unit) * unit


def _store(owner: object, attribute: str, make: Callable[..., object], *args: object) -> None:
    """Have an attribute be what a function that is written in C makes.

    Python handles signals after every call: as two statements, Ctrl-C between the call and the
    assignment would lose what was made. `list` does both within one call.
    """
    list(map(setattr, (owner,), (attribute,), map(make, *((arg,) for arg in args))))


class Mapping:
    """A mapped piece of a segment; unmapped when it and the last view of it are gone.

    A large one lies so that it may have huge pages: at an address that is as far from a multiple of
    `HUGE` as its offset is.
    """

    __slots__ = ("_reserved", "_span", "address", "size")

    def __init__(self, fd: int, offset: int, size: int, *, is_private: bool = False) -> None:
        """Map `size` bytes at `offset` (both multiples of the page size) of `fd`.

        Args:
            fd: A memfd; it may be closed afterwards.
            offset: In it.
            size: Of the mapping.
            is_private: Whether what is written here stays here (copy-on-write).

        Raises:
            OSError: The kernel refused (address space, number of mappings).
        """
        self.address = self._reserved = 0
        self.size = self._span = size
        kind = _MAP_PRIVATE if is_private else _MAP_SHARED
        if size < HUGE:
            self._map("_reserved", None, size, _PROT_READ_WRITE, kind, fd, offset)
            self.address = self._reserved
            return
        # The kernel takes such an address only where it is told to: it is in a piece of the address
        # space that is reserved first, and given up as one.
        self._span = size + HUGE
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
        self._map("_reserved", None, self._span, _PROT_NONE, flags, -1, 0)
        place = self._reserved + (offset - self._reserved) % HUGE
        self._map("address", place, size, _PROT_READ_WRITE, kind | _MAP_FIXED, fd, offset)

    def _map(self, attribute: str, *args: int | None) -> None:
        _store(self, attribute, _mmap, *args)
        if getattr(self, attribute) in (None, _MAP_FAILED):
            setattr(self, attribute, 0)  # so that __del__ has nothing to do
            code = ctypes.get_errno()
            msg = f"mapping {self.size} bytes of shared memory failed: {os.strerror(code)}"
            raise OSError(code, msg)

    def view(self, keeper: object = None) -> memoryview:
        """Return a writable byte view of the whole mapping, which keeps it, and `keeper`, alive."""
        anchor: Any = (ctypes.c_ubyte * self.size).from_address(self.address)
        anchor.mapping, anchor.keeper = self, keeper
        # By way of pickle: a memoryview of a ctypes array itself has a format that cannot be cast.
        return PickleBuffer(anchor).raw()

    def populate(self, offset: int, size: int) -> None:
        """Fault in the pages of ``[offset, offset + size)`` at once, where the kernel can."""
        start = offset // PAGE * PAGE
        _madvise(self.address + start, round_up(offset + size) - start, _MADV_POPULATE_WRITE)

    def collapse(self, offset: int, size: int) -> None:
        """Have ``[offset, offset + size)`` in huge pages, as far as whole ones fit, if it can be.

        What is there stays, and others may use it meanwhile. 4 MiB then go from one process to
        another in 0.5 ms instead of 0.75. To have 64 MiB takes 4 ms, or 150 where free memory is
        the host's; page by page 50 to 120. The kernel heeds no setting in this
        (``transparent_hugepage/shmem_enabled``); it may have too little memory in one piece, or be
        older than 6.1: then pages are as they are, which is only slower.
        """
        start = offset + (-self.address - offset) % HUGE
        length = (offset + size - start) // HUGE * HUGE
        if length <= 0:
            return
        # Of a piece of which there is nothing yet, nothing could be collapsed. Reading will do.
        bytes(self.view()[start : start + length : HUGE])
        _madvise(self.address + start, length, _MADV_COLLAPSE)

    @finalizer
    def __del__(self, _munmap: Any = _munmap) -> None:
        if getattr(self, "_reserved", 0):  # Ctrl-C may have come before there was one
            reserved, self._reserved = self._reserved, 0  # once, if this is run again
            _munmap(reserved, self._span)


class Segment:
    """One memfd. Owns the descriptor; mappings made from it live on after `close`."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor; -1: none, until `allocate`."""
        self.fd = fd

    @classmethod
    def create(cls, name: str, size: int) -> Segment:
        """Make a segment of `size` bytes (sparse), sealed against being resized.

        Raises:
            MemoryCapError: The kernel refuses a file of this size (``ulimit -f``, descriptors).
        """
        segment = cls(-1)
        try:
            segment.allocate(name, size)
        except BaseException:  # Ctrl-C too
            segment.close()
            raise
        return segment

    def allocate(self, name: str, size: int) -> None:
        """Have this segment, which has no descriptor, be what `create` makes.

        Whoever is to close it has it before, so Ctrl-C loses nothing on the way there. If this
        raises, `close` is still to be called.

        Raises:
            MemoryCapError: As `create`.
        """
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            _store(self, "fd", os.memfd_create, name, flags)
        except OSError as error:
            why = no_descriptors() if error.errno == errno.EMFILE else error.strerror
            msg = f"shared memory for {name} could not be made: {why}"
            raise MemoryCapError(msg) from error
        try:
            os.ftruncate(self.fd, size)
            # Sealed: a peer that shrank the file would turn every access into a SIGBUS.
            fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW)
        except OSError as error:
            msg = (
                f"shared memory of {size} bytes (sparse) for {name} was refused: "
                f"{error.strerror}. Raise the file size limit (ulimit -f unlimited)"
            )
            raise MemoryCapError(msg) from error

    def map(self, offset: int, size: int) -> Mapping:
        """Map ``[offset, offset + size)``, both multiples of the page size."""
        return Mapping(self.fd, offset, size)

    def punch(self, offset: int, size: int) -> None:
        """Give the memory of ``[offset, offset + size)`` back; it reads as zeros afterwards."""
        punch(self.fd, offset, size)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def punch(fd: int, offset: int, size: int) -> None:
    """Give the memory of a part of a memfd back, whoever maps it; it reads as zeros afterwards."""
    _fallocate(fd, _FALLOC_KEEP_SIZE_PUNCH_HOLE, offset, size)


def no_descriptors() -> str:
    """Return what is said where this process can open no file."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"the process has no file descriptors left, all {limit} are open. Raise the limit "
        "(ulimit -n), or close files and tear down graphs that are not needed"
    )


def available_bytes() -> int:
    """Return how much memory may still be touched: the machine's and the cgroup's, the smaller."""
    return min(_machine_available(), _cgroup_available())


def require_memory(nbytes: int, what: str) -> None:
    """Refuse memory that is not there, before touching it would get the process killed.

    Raises:
        MemoryCapError: Less than `nbytes` are available for `what`.
    """
    available = available_bytes()
    if nbytes > available:
        msg = (
            f"{what} needs {nbytes} bytes of shared memory and {available} are available "
            "(MemAvailable, or the cgroup's limit). Use smaller buffers "
            "(_buffer_size_bytes, _max_inflight_executions) or free memory"
        )
        raise MemoryCapError(msg)


def _machine_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 62  # a kernel without the line: no statement, no refusal


def _cgroup_available() -> int:
    """Room under the tightest v2 limit on the way from this process's cgroup to the root."""
    room = 1 << 62
    try:
        path = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
    except OSError:
        return room
    folder = Path("/sys/fs/cgroup") / path.lstrip("/")
    for place in (folder, *folder.parents):
        try:
            limit = (place / "memory.max").read_text().strip()
            used = int((place / "memory.current").read_text())
        except (OSError, ValueError):
            continue
        if limit != "max":
            room = min(room, int(limit) - used)
        if place == Path("/sys/fs/cgroup"):
            break
    return max(room, 0)
