"""A value on its way between processes: small ones inline, large ones in a memfd.

A parcel is not changed once made, so the same one may be sent to several actors and loaded several
times. Whoever loads a large parcel maps it copy-on-write: numpy arrays come back read-only without
a copy, tensors writable and private without one, whoever else holds the same value.

The body is the table of buffers (length << 1 | private), the head, then each buffer at a multiple
of 64, as in a channel's slot (`compiled_dag.channel.layout`).
"""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel.body import ALIGN
from compiled_dag.channel.codec import Encoded, Kind, decode, encode
from compiled_dag.shm.segment import Mapping, Segment, require_memory, round_up
from runtime.references import collecting, supplying
from runtime.warm import capacity_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.references import Reference

INLINE_BYTES: Final = 100 * 1024
"""Larger bodies travel in a memfd of their own."""
_PLAIN: Final = frozenset({str, bool, int, float, complex, type(None)})
"""Pickled as they are; most calls return one."""
_HOLD_NOTHING: Final = _PLAIN | {bytes}
_PICKLE: Final = int(Kind.PICKLE)
_ERROR: Final = int(Kind.ERROR)
"""Plain numbers: packing and comparing an enum's member costs three times as much."""
_CHECK_BYTES: Final = 16 << 20
"""From here on it is worth asking the kernel whether there is room."""
_PADDING: Final = bytes(ALIGN)
_MOST_CHUNKS: Final = 1000  # the kernel takes 1024 at a time

META: Final = struct.Struct("<BBHIQH")
"""kind, in a segment, number of buffers, bytes of the head, bytes of the body, references"""


class Parcel:
    """One encoded value, and the references inside it."""

    __slots__ = (
        "body",
        "exclusive",
        "fd",
        "head_bytes",
        "kind",
        "num_buffers",
        "on_free",
        "references",
        "size",
    )

    def __init__(
        self,
        kind: int,
        num_buffers: int,
        head_bytes: int,
        size: int,
        body: bytes,
        fd: int = -1,
        references: Sequence[Reference] = (),
    ) -> None:
        self.kind = kind
        self.num_buffers = num_buffers
        self.head_bytes = head_bytes
        self.size = size
        self.body = body
        """Empty if the body is in `fd`."""
        self.fd = fd
        """Owned; -1 if the body is inline."""
        self.references = references
        self.exclusive = True
        """Whether whoever maps a body in `fd` has a reference of the value."""
        self.on_free: Callable[[Parcel], bool] | None = None
        """Told when a body in `fd` is given back; tells whether it has taken the descriptor over.
        Must be safe in finalizers."""

    @classmethod
    def of(cls, value: Any) -> Parcel:
        """Encode `value`; nothing of it is shared with the parcel.

        Raises:
            TypeError: Part of the value cannot be pickled; the message names the path to it.
            MemoryCapError: There is no room for it.
        """
        found: Sequence[Reference] = ()
        if value.__class__ in _PLAIN:
            head = pickle.dumps(value, 5)
            if len(head) <= INLINE_BYTES:
                return cls(_PICKLE, 0, len(head), len(head), head)
        if value.__class__ in _HOLD_NOTHING:
            encoded = encode(value)
        else:
            with collecting() as found:
                encoded = encode(value)
        kind, head, buffers, *_ = encoded
        kind = int(kind)  # type: ignore[assignment]
        if not buffers and len(head) <= INLINE_BYTES:
            return cls(kind, 0, len(head), len(head), head, references=found)
        chunks = list(_chunks(encoded))
        size = sum(map(_nbytes, chunks))
        if size <= INLINE_BYTES:
            return cls(kind, len(buffers), len(head), size, b"".join(chunks), references=found)
        fd = _store(chunks, size)
        return cls(kind, len(buffers), len(head), size, b"", fd, found)

    @property
    def is_error(self) -> bool:
        """Tell whether this is an `Error` in place of a value."""
        return self.kind == _ERROR

    def meta(self) -> bytes:
        """Return what `from_wire` needs beside the body or the descriptor."""
        references = self.references
        meta = META.pack(
            self.kind,
            self.fd >= 0,
            self.num_buffers,
            self.head_bytes,
            self.size,
            len(references),
        )
        if references:
            numbers = [reference.number for reference in references]
            meta += struct.pack(f"<{len(numbers)}q", *numbers)
        return meta

    def head(self) -> bytes:
        """Return the pickle itself, without its buffers."""
        table = 8 * self.num_buffers
        if self.fd >= 0:
            return os.pread(self.fd, self.head_bytes, table)
        return self.body[table : table + self.head_bytes]

    def load(self, keeper: object = None) -> Any:
        """Rebuild the value; every call gives a new one.

        Args:
            keeper: Kept alive as long as anything of the value that is mapped.

        Raises:
            Exception: Whatever unpickling the user's value raises.
        """
        if self.references:
            with supplying(self.references):
                return self._load(keeper)
        return self._load(keeper)

    def _load(self, keeper: object) -> Any:
        if not self.num_buffers and self.fd < 0:
            if self.kind == _PICKLE:
                return pickle.loads(self.body)
            return decode(self.kind, self.body, ())
        if self.fd >= 0:
            return self._load_mapped(keeper)
        view = memoryview(self.body)
        head = self.head()
        buffers = [
            bytearray(view[start:end]) if private else view[start:end]
            for start, end, private in self._places(view)
        ]
        return decode(self.kind, head, buffers)

    def _load_mapped(self, keeper: object) -> Any:
        mapping = _PrivateMapping(self.fd, self.size, keeper)
        whole = mapping.array(0, self.size)
        view = memoryview(whole).cast("B")
        table = 8 * self.num_buffers
        head = bytes(view[table : table + self.head_bytes])
        buffers = [
            mapping.array(start, end)
            if private
            else memoryview(mapping.array(start, end)).cast("B").toreadonly()
            for start, end, private in self._places(view)
        ]
        return decode(self.kind, head, buffers)

    def _places(self, view: memoryview) -> Iterator[tuple[int, int, bool]]:
        at = 8 * self.num_buffers + self.head_bytes
        for (entry,) in struct.iter_unpack("<Q", view[: 8 * self.num_buffers]):
            start = round_up(at, ALIGN)
            at = start + (entry >> 1)
            yield start, at, bool(entry & 1)

    def __del__(self, _close=os.close) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
        if self.fd >= 0 and (self.on_free is None or not self.on_free(self)):
            _close(self.fd)


def _nbytes(chunk: Any) -> int:
    return len(chunk) if chunk.__class__ is bytes else memoryview(chunk).nbytes


def _chunks(encoded: Encoded) -> Iterator[Any]:
    """Yield the pieces of a body in order."""
    _, head, buffers, private, _ = encoded
    sizes = [_nbytes(buffer) for buffer in buffers]
    entries = (size << 1 | (index in private) for index, size in enumerate(sizes))
    yield struct.pack(f"<{len(sizes)}Q", *entries)
    yield head
    at = 8 * len(sizes) + len(head)
    for buffer, size in zip(buffers, sizes, strict=True):
        start = round_up(at, ALIGN)
        yield _PADDING[: start - at]
        yield buffer
        at = start + size


def _store(chunks: list[Any], size: int) -> int:
    """Write a body into a memfd. Writing is faster than mapping: no page faults one by one.

    Huge pages (`Mapping.collapse`) made 64 MiB twice as fast. But where a machine's free memory is
    its host's, new ones cost 5 ms each, and every value may take new ones: 8 MiB took 22 ms instead
    of 4, in half of the runs.
    """
    segment = Segment(_Stock.take(size))
    if segment.fd < 0:
        if size >= _CHECK_BYTES:
            require_memory(size, "a value")
        segment = Segment.create("compiled-dag-value", capacity_for(size))
    try:
        left = [memoryview(chunk).cast("B") for chunk in chunks if _nbytes(chunk)]
        at = 0
        while left:
            written = os.pwritev(segment.fd, left[:_MOST_CHUNKS], at)
            left = _skip(left, written)
            at += written
    except BaseException:
        segment.close()
        raise
    return segment.fd


class _Stock:
    """Where memory comes from that was used before."""

    take: Callable[[int], int] = staticmethod(lambda _size: -1)


def set_stock(take: Callable[[int], int] | None) -> None:
    """Have `take` return memory for so many bytes, or -1."""
    _Stock.take = staticmethod(take or (lambda _size: -1))


def _skip(views: list[memoryview], nbytes: int) -> list[memoryview]:
    for index, view in enumerate(views):
        if nbytes < view.nbytes:
            return [view[nbytes:], *views[index + 1 :]]
        nbytes -= view.nbytes
    return []


# --- mapping --------------------------------------------------------------------------------------


class _Bytes(ctypes.Array):  # type: ignore[type-arg]
    """Base of the views of a mapping: an attribute keeps the mapping alive."""

    _type_ = ctypes.c_ubyte
    _length_ = 0
    mapping: _PrivateMapping


class _PrivateMapping:
    """A memfd mapped copy-on-write; unmapped when the last view made by `array` is gone.

    Unlike `mmap.mmap` it holds no descriptor, so many large values may be held at once.
    """

    __slots__ = ("_keeper", "_mapping")

    def __init__(self, fd: int, size: int, keeper: object) -> None:
        self._keeper = keeper
        self._mapping = Mapping(fd, 0, round_up(size), is_private=True)

    def array(self, start: int, end: int) -> Any:
        """Return a writable buffer over a part, which keeps the mapping alive."""
        kind = type("Bytes", (_Bytes,), {"_type_": ctypes.c_ubyte, "_length_": end - start})
        made: Any = kind.from_address(self._mapping.address + start)  # type: ignore[attr-defined]
        made.mapping = self
        return made
