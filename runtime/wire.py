"""Messages on an inherited socket pair, and the file descriptors that go with them.

A frame is a fixed header and a body. Messages that bring values, and what system functions get and
return, are laid out by hand, the others are pickled. Everything comes from a process this project
started, over a socket that has no address; that is why unpickling is safe here.

The kernel keeps descriptors in order with the bytes: those of a frame have arrived when its first
byte has, so an inbox hands them out in the order of the frames.
"""

from __future__ import annotations

import array
import errno
import os
import pickle
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from runtime.messages import (
    Ask,
    Call,
    Item,
    Message,
    Put,
    Reply,
    Resolved,
    Submit,
    System,
    SystemReply,
)
from runtime.parcel import INLINE, LENT, META, SPARE, Parcel, StoredParcel
from runtime.spare import Spare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HEADER: Final = struct.Struct("<IBHHQI")
"""bytes of the body, type, descriptors, count (parcels), number, extra (depends on the type)"""
_PICKLED, _CALL, _REPLY, _SYSTEM, _SYSTEM_REPLY, _RESOLVED, _PUT, _SUBMIT, _ASK, _ITEM = range(
    0xD0, 0xDA
)
_CALL_WITH_SPARE: Final = 0xDA
"""Types; high, so that zeros, text and most of what a stray write leaves are none."""

_NAMED: Final[dict[int, Any]] = {_SUBMIT: Submit, _RESOLVED: Resolved, _ASK: Ask, _ITEM: Item}
"""Messages of a number, bytes, and parcels."""
_CODES: Final[dict[Any, int]] = {kind: code for code, kind in _NAMED.items()}

_META: Final = META.size

_HOT: Final = frozenset((_CALL, _REPLY))

MAX_FDS: Final = 253
"""The kernel's limit for one message (SCM_MAX_FD)."""
_CONTROL_BYTES: Final = socket.CMSG_SPACE(MAX_FDS * 4)
_RECEIVE: Final = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_TRUNCATED: Final = int(socket.MSG_CTRUNC)  # plain: `&` with the enum takes 1 us
_SEND: Final = int(socket.MSG_NOSIGNAL)
_SEND_SOME: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_BUFFER_BYTES: Final = 256 * 1024

# --- out ------------------------------------------------------------------------------------------


def pack(message: Message) -> tuple[bytes, Sequence[int]]:
    """Return the frame of `message` and the descriptors that go with it (still the message's)."""
    if isinstance(message, Reply):
        number, parcels = message
        return _pack_parcels(_REPLY, number, b"", parcels)
    if isinstance(message, Call):
        number, method, num_returns, parcels, spare = message
        name = num_returns.to_bytes(2, "little") + method
        if spare is None:
            return _pack_parcels(_CALL, number, name, parcels)
        data, theirs = _pack_parcels(_CALL_WITH_SPARE, number, name, parcels)
        return data, [*theirs, spare.fd]
    kind = message.__class__
    if kind in _CODES:
        named: Any = message
        return _pack_parcels(_CODES[kind], *named)
    if isinstance(message, Put):
        return _pack_parcels(_PUT, message.number, b"", message.parcels)
    if isinstance(message, System):
        extra = len(message.function)
        size = extra + len(message.payload)
        num_fds = len(message.fds)
        header = _HEADER.pack(size, _SYSTEM, num_fds, 0, message.number, extra)
        return header + message.function + message.payload, message.fds
    if isinstance(message, SystemReply):
        size = len(message.data)
        header = _HEADER.pack(size, _SYSTEM_REPLY, 0, 0, message.number, message.failed)
        return header + message.data, ()
    fds: Sequence[int] = getattr(message, "fds", ())
    body = pickle.dumps(message, 5)
    return _HEADER.pack(len(body), _PICKLED, len(fds), 0, 0, 0) + body, fds


def _pack_parcels(
    kind: int, number: int, name: bytes, parcels: Sequence[Parcel]
) -> tuple[bytes, Sequence[int]]:
    if len(parcels) == 1 and parcels[0].is_plain:  # almost all
        parcel = parcels[0]
        body = parcel.body
        meta = META.pack(
            parcel.kind, INLINE, parcel.num_buffers, parcel.head_bytes, parcel.size, 0, 0
        )
        size = len(name) + len(meta) + len(body)
        header = _HEADER.pack(size, kind, 0, 1, number, len(name))
        return b"".join((header, name, meta, body)), ()
    lent = kind in (_CALL, _CALL_WITH_SPARE)
    pieces = [name]
    for parcel in parcels:
        pieces += parcel.meta(lent=lent), parcel.body
    fds = [parcel.fd for parcel in parcels if parcel.fd >= 0 and not parcel.is_in_spare]
    size = sum(map(len, pieces))
    header = _HEADER.pack(size, kind, len(fds), len(parcels), number, len(name))
    return b"".join((header, *pieces)), fds


def send_some(sock: socket.socket, data: memoryview | bytes, fds: Sequence[int]) -> int:
    """Send what fits without waiting; returns bytes sent.

    Descriptors go with the first byte, all but `left_fds`; if there are some of these, it is the
    only byte sent.

    Raises:
        BlockingIOError: Nothing fits now.
        OSError: The peer is gone.
    """
    if not fds:
        return sock.send(data, _SEND_SOME)
    return sock.sendmsg([_first(data, fds)], _rights(fds), _SEND_SOME)


def left_fds(fds: Sequence[int]) -> Sequence[int]:
    """Return the descriptors that go with later bytes: the kernel takes so many at a time."""
    return fds[MAX_FDS:]


def _first(data: memoryview | bytes, fds: Sequence[int]) -> memoryview | bytes:
    return data[:1] if left_fds(fds) else data


def _rights(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds[:MAX_FDS]))]


def send(sock: socket.socket, message: Message) -> None:
    """Send all of `message`, waiting for room.

    Raises:
        OSError: The peer is gone.
    """
    send_all(sock, *pack(message))


def send_all(sock: socket.socket, data: memoryview | bytes, fds: Sequence[int]) -> None:
    """Send what `pack` made, waiting for room.

    Raises:
        OSError: The peer is gone.
    """
    if not fds:
        sock.sendall(data, _SEND)
        return
    left = memoryview(data)
    while fds:
        left = left[sock.sendmsg([_first(left, fds)], _rights(fds), _SEND) :]
        fds = left_fds(fds)
    if left:
        sock.sendall(left, _SEND)


# --- in -------------------------------------------------------------------------------------------


def _no_references(number: int) -> Any:
    raise OSError(f"reference {number} arrived where there are none")


def _no_spares(number: int) -> int:
    raise OSError(f"call {number} was answered in memory that nobody lends here")


class Inbox:
    """The receiving side of one socket, which it does not own; not for several threads at once."""

    def __init__(
        self,
        sock: socket.socket,
        find: Callable[[int], Any] = _no_references,
        use_spare: Callable[[int], int] = _no_spares,
    ) -> None:
        """Begin with nothing received.

        Args:
            sock: Where from.
            find: Returns a reference by its number.
            use_spare: Returns the memory that the call with this number was lent for its result.
        """
        self._sock = sock
        self._find = find
        self._use_spare = use_spare
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._end = 0
        """Bytes of an incomplete frame, at the start of the buffer."""
        self._fds: deque[int] = deque()
        self.closed = False
        """Whether the peer has closed its side."""
        self.emptied = True
        """Whether the last `receive` took all that had been sent by then."""

    def receive(self, into: deque[Any]) -> bool:
        """Take what is there without waiting; returns False if nothing was.

        Raises:
            OSError: A descriptor could not be received, or the peer sent what is no message;
                nothing more will be received.
        """
        self.emptied = True
        if self.closed:
            return False
        room = self._view[self._end :] if self._end else self._view
        try:
            nbytes, control, flags, _ = self._sock.recvmsg_into((room,), _CONTROL_BYTES, _RECEIVE)
        except BlockingIOError:
            return False
        except OSError:
            nbytes, control, flags = 0, [], 0  # reset by a peer that died with our bytes unread
        if not nbytes:
            self.closed = True
            return False
        # Bytes that come with descriptors end a read, whatever is behind them.
        self.emptied = not control and nbytes < len(room)
        for _, _, data in control:
            self._fds.extend(array.array("i", data[: len(data) - len(data) % 4]))
        if flags & _TRUNCATED:
            self.close()
            raise OSError(errno.EMFILE, "too many open files, ulimit -n: hold fewer values")
        self._split(self._end + nbytes, into)
        return True

    def _split(self, end: int, into: deque[Any]) -> None:
        """Take the complete frames out of the first `end` bytes; move the rest to the front."""
        view, at = self._view, 0
        header_size = _HEADER.size
        while end - at >= header_size:
            size, kind, num_fds, count, number, extra = _HEADER.unpack_from(view, at)
            if not _PICKLED <= kind <= _CALL_WITH_SPARE:
                self.close()
                raise OSError(errno.EBADMSG, "somebody else has written to its socket")
            stop = at + header_size + size
            if stop > end:
                if stop - at > len(self._buffer):
                    self._grow(at, end, stop - at)
                    return
                break
            message: Message | None = None
            if count == 1 and kind in _HOT:
                message = self._simple(kind, number, at + header_size, extra, stop)
            if message is None:
                body = bytes(view[at + header_size : stop])
                message = self._message(kind, num_fds, count, number, extra, body)
            into.append(message)
            at = stop
        rest = end - at
        if rest and at:
            view[:rest] = bytes(view[at:end])
        self._end = rest

    def _grow(self, at: int, end: int, size: int) -> None:
        rest = bytes(self._view[at:end])
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._view[: len(rest)] = rest
        self._end = len(rest)

    def _simple(
        self, kind: int, number: int, at: int, extra: int, stop: int
    ) -> Call | Reply | None:
        """Do what `_message` does for a call or reply of one plain parcel; None if it is not."""
        view = self._view
        start = at + extra
        kind_of_value, where, num_buffers, head_bytes, size, num_references, _ = META.unpack_from(
            view, start
        )
        if where != INLINE or num_references:
            return None
        parcels = (
            Parcel(kind_of_value, num_buffers, head_bytes, size, bytes(view[start + _META : stop])),
        )
        if kind == _REPLY:
            return Reply(number, parcels)
        num_returns = view[at] | view[at + 1] << 8
        return Call(number, bytes(view[at + 2 : start]), num_returns, parcels)

    def _message(
        self, kind: int, num_fds: int, count: int, number: int, extra: int, body: bytes
    ) -> Message:
        if kind == _REPLY:
            return Reply(number, self._parcels(body, 0, count, number))
        if kind in (_CALL, _CALL_WITH_SPARE):
            num_returns = int.from_bytes(body[:2], "little")
            parcels = self._parcels(body, extra, count)
            spare = None if kind == _CALL else Spare(self._fds.popleft())
            return Call(number, body[2:extra], num_returns, parcels, spare)
        if kind in _NAMED:
            made: Message = _NAMED[kind](number, body[:extra], self._parcels(body, extra, count))
            return made
        if kind == _PUT:
            return Put(number, self._parcels(body, 0, count))
        fds = [self._fds.popleft() for _ in range(num_fds)]
        if kind == _SYSTEM:
            return System(number, body[:extra], body[extra:], fds)
        if kind == _SYSTEM_REPLY:
            return SystemReply(number, bool(extra), body)
        message: Message = pickle.loads(body)
        if fds:
            carrier: Any = message
            message = carrier._replace(fds=tuple(fds))
        return message

    def _parcels(self, body: bytes, at: int, count: int, call: int = 0) -> list[Parcel]:
        parcels: list[Parcel] = []
        for _ in range(count):
            kind, where, num_buffers, head_bytes, size, num_references, lent = META.unpack_from(
                body, at
            )
            at += META.size
            references: Sequence[Any] = ()
            if num_references:
                numbers = struct.unpack_from(f"<{num_references}q", body, at)
                at += 8 * num_references
                references = [self._find(number) for number in numbers]
            if where == INLINE:
                inline = body[at : at + size]
                at += size
                parcels.append(Parcel(kind, num_buffers, head_bytes, size, inline, references))
                continue
            fd = self._use_spare(call) if where == SPARE else self._fds.popleft()
            stored = StoredParcel(kind, num_buffers, head_bytes, size, fd, references)
            if where == LENT:
                stored.lease = self._find(lent)
            parcels.append(stored)
        return parcels

    def close(self) -> None:
        """Close the descriptors nobody has taken. The socket is its owner's."""
        self.closed = True
        self._view = memoryview(b"")
        self._buffer = bytearray()  # much more than all else that is kept of a dead actor
        self._end = 0
        while self._fds:
            os.close(self._fds.popleft())
