"""A value on its way between processes: small ones inline, large ones in a memfd.

A parcel is not changed once made, so the same one may be sent to several actors and loaded several
times. Whoever loads a large parcel maps it: numpy arrays come back read-only without a copy. If it
holds tensors it is mapped copy-on-write, so that these are writable and private without a copy,
whoever else holds the same value.

The body is as in a channel's slot (`compiled_dag.channel.body`).

The memory of a large one is used again (`runtime.warm`) once nobody can see it any more. So whoever
maps it keeps something alive meanwhile (`load`): the parcel itself in the process that owns it; in
others the reference of the object, or the `lease` that came with the arguments of a call. These
tell the owner when they go, and so does the death of their process.
"""

from __future__ import annotations

import os
import pickle
import struct
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel.body import body_in, body_of
from compiled_dag.channel.codec import Kind, decode, encode
from compiled_dag.interrupts import finalizer, whole
from compiled_dag.shm.segment import Mapping, round_up
from runtime.bodies import pieces_of, store
from runtime.mapped import MAPPINGS
from runtime.references import collecting, next_reference, supplying
from runtime.warm import Stock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.body import Body
    from compiled_dag.channel.pickling import Buffer
    from runtime.references import Reference
    from runtime.spare import Spare

INLINE_BYTES: Final = 100 * 1024
"""Larger bodies travel in a memfd of their own."""
_PLAIN: Final = frozenset({str, bool, int, float, complex, type(None)})
"""Pickled as they are; most calls return one."""
_HOLD_NOTHING: Final = _PLAIN | {bytes}
_PICKLE: Final = int(Kind.PICKLE)
_ERROR: Final = int(Kind.ERROR)
"""Plain numbers: packing and comparing an enum's member costs three times as much."""
INLINE, STORED, LENT, SPARE = range(4)
"""Where a body is: in the message, in a segment, in one whose `number` comes along, or in the one
that the call was lent for its result."""

META: Final = struct.Struct("<BBHIQHq")
"""kind, where the body is, number of buffers, bytes of the head, bytes of the body, references,
number of the memory if it is lent"""


class Parcel:
    """One encoded value, and the references inside it.

    This one has its body in itself, as almost all have; `StoredParcel` has it in memory of its own.
    """

    __slots__ = ("__weakref__", "body", "head_bytes", "kind", "num_buffers", "references", "size")

    # What only memory of its own has.
    fd = -1
    number = 0
    lease: Any = None
    on_free: Callable[[Any], object] | None = None

    is_in_spare = False
    """Whether the receiver has lent the memory of the body."""

    def __init__(
        self,
        kind: int,
        num_buffers: int,
        head_bytes: int,
        size: int,
        body: bytes,
        references: Sequence[Reference] = (),
    ) -> None:
        self.kind = kind
        self.num_buffers = num_buffers
        self.head_bytes = head_bytes
        self.size = size
        self.body = body
        """Empty if the body is in `fd`."""
        self.references = references

    @staticmethod
    def of(value: Any, spare: Spare | None = None) -> Parcel:
        """Encode `value`; nothing of it is shared with the parcel.

        Args:
            value: Anything that can be pickled.
            spare: Memory that the receiver has lent for it.

        Raises:
            TypeError: Part of the value cannot be pickled; the message names the path to it.
            MemoryCapError: There is no room for it.
        """
        found: Sequence[Reference] = ()
        if value.__class__ in _PLAIN:
            head = pickle.dumps(value, 5)
            if len(head) <= INLINE_BYTES:
                return Parcel(_PICKLE, 0, len(head), len(head), head)
        if value.__class__ in _HOLD_NOTHING:
            encoded = encode(value)
        else:
            with collecting() as met:
                encoded = encode(value)
            found = list(met)
        kind, head, buffers, private, _ = encoded
        kind = int(kind)  # type: ignore[assignment]
        if not buffers and len(head) <= INLINE_BYTES:
            return Parcel(kind, 0, len(head), len(head), head, found)
        body = body_of(len(head), tuple(map(len, buffers)), private)
        if body.size <= INLINE_BYTES:
            joined = b"".join(pieces_of(body, head, buffers))
            return Parcel(kind, len(buffers), len(head), body.size, joined, found)
        return _stored(kind, body, head, buffers, found, spare)

    @property
    def is_error(self) -> bool:
        """Tell whether this is an `Error` in place of a value."""
        return self.kind == _ERROR

    @property
    def is_plain(self) -> bool:
        """Tell whether it is nothing but bytes: no memory of its own, no references."""
        return self.fd < 0 and not self.references

    def meta(self, *, lent: bool = False) -> bytes:
        """Return what `from_wire` needs beside the body or the descriptor.

        Args:
            lent: Whether the receiver has no reference of the value, and tells by its number when
                it is done with the memory.
        """
        references = self.references
        where = INLINE if self.fd < 0 else LENT if lent else SPARE if self.is_in_spare else STORED
        meta = META.pack(
            self.kind,
            where,
            self.num_buffers,
            self.head_bytes,
            self.size,
            len(references),
            self.number,
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
            keeper: Kept alive as long as anything of the value that is mapped; None: the `lease`,
                or the parcel.

        Raises:
            Exception: Whatever unpickling the user's value raises.
        """
        if self.references:
            with supplying(self.references):
                return self._load(keeper)
        if self.kind == _PICKLE and not self.num_buffers and self.fd < 0:
            return pickle.loads(self.body)  # almost all; as `_load` does
        return self._load(keeper)

    def take(self) -> Any:
        """Rebuild the value, once: a lease goes with it. Raises as `load`."""
        return self.load()

    def _load(self, keeper: object) -> Any:
        del keeper  # nothing is mapped
        if not self.num_buffers:
            return decode(self.kind, self.body, ())
        view = memoryview(self.body)
        body = body_in(self.head_bytes, self.body[: 8 * self.num_buffers])
        parts: list[Any] = list(map(view.__getitem__, body.buffers))
        for index in body.private:
            parts[index] = bytearray(parts[index])
        return decode(self.kind, bytes(view[body.head]), parts)


class StoredParcel(Parcel):
    """A parcel whose body is in a memfd."""

    __slots__ = ("exclusive", "fd", "forks", "lease", "number", "on_free")

    def __init__(
        self,
        kind: int,
        num_buffers: int,
        head_bytes: int,
        size: int,
        fd: int,
        references: Sequence[Reference] = (),
    ) -> None:
        super().__init__(kind, num_buffers, head_bytes, size, b"", references)
        self.number = next_reference()
        """Names the memory, where it is lent to processes that have no reference of the value."""
        self.lease = None
        """What keeps the memory as it is, if another process has lent it to this one."""
        self.exclusive = True
        """Whether nobody sees the body who does not tell when that is over."""
        self.forks = Stock.forks
        self.on_free = None
        """Told when the body is given back. Must be safe in finalizers."""
        self.fd = fd  # the last: `__del__` needs the others where there is one
        """Owned."""

    def take(self) -> Any:
        """Rebuild the value, once: the lease goes with it. Raises as `load`."""
        try:
            return self.load()
        finally:
            self.lease = None

    def _load(self, keeper: object) -> Any:
        keeper = keeper or self.lease or self
        table = 8 * self.num_buffers
        start = os.pread(self.fd, table + self.head_bytes, 0)
        body = body_in(self.head_bytes, start[:table])
        if body.private:
            view = Mapping(self.fd, 0, round_up(self.size), is_private=True).view(keeper)
        else:
            view = MAPPINGS.of(self.fd, self.size).view(keeper)
        shared = view.toreadonly()
        parts = list(map(shared.__getitem__, body.buffers))
        for index in body.private:
            parts[index] = view[body.buffers[index]]
        return decode(self.kind, start[table:], parts)

    @finalizer
    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:  # Ctrl-C may have come before there was one
            self._free()

    # Defaults, not global names: it may run when the module's globals are already gone.
    @whole
    def _free(self, _close: Any = os.close, _stock: Any = Stock) -> None:
        if self.on_free is not None:
            self.on_free(self)
        fd, self.fd = self.fd, -1
        seen = not self.exclusive or self.forks != _stock.forks
        if seen or not _stock.give(fd):
            _close(fd)


class _InSpare(StoredParcel):
    """One whose body is in memory that the receiver has lent, and keeps."""

    __slots__ = ()

    is_in_spare = True


@whole
def _stored(
    kind: int,
    body: Body,
    head: bytes,
    buffers: Sequence[Buffer],
    references: Sequence[Reference],
    spare: Spare | None,
) -> Parcel:
    """Return the parcel of a value in memory of its own: whole, or Ctrl-C would lose that."""
    fd = -1 if spare is None else spare.take(body.size)
    kept = StoredParcel if fd < 0 else _InSpare
    fd = store(body, head, buffers, Stock.take(body.size) if fd < 0 else fd)
    return kept(kind, len(buffers), len(head), body.size, fd, references)
