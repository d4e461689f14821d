"""The rendezvous store of a group: a log in the group's shared memory instead of a TCP port.

torch's process groups find each other through a `Store`. gloo calls ``set``, ``wait`` and ``get`` a
handful of times while a group forms; nothing here is on a hot path. Entries are appended under a
POSIX file lock (which dies with its holder); the length is stored last, so readers need no lock.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch.distributed import Store  # type: ignore[attr-defined]  # exported, not declared

from collective.header import LOG_BYTES, GroupHeader
from compiled_dag.errors import CollectiveTimeoutError
from compiled_dag.shm.futex import fence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from compiled_dag.shm.waiter import Waiter

_ENTRY = struct.Struct("<II")  # length of key, length of value
_DELETED = 0xFFFFFFFF  # in place of the length of a value

# POSIX locks belong to processes: the threads of one need a lock of their own, for all stores.
_lock = threading.Lock()


class SharedMemoryStore(Store):
    """A torch `Store` over a group's header."""

    def __init__(self, header: GroupHeader, waiter: Waiter, timeout_s: float) -> None:
        super().__init__()
        self._header = header
        self._waiter = waiter.twin()  # backends connect on threads of their own
        self._timeout_s = timeout_s
        self._start = header.log + 8

    @property
    def header(self) -> GroupHeader:
        """The group's header."""
        return self._header

    def set(self, key: str, value: str | bytes) -> None:
        """Store a value, replacing an older one."""
        with self._exclusive():
            self._append(key, _bytes(value))

    def get(self, key: str) -> bytes:
        """Return a value, waiting for it."""
        self.wait([key])
        return self._entries()[key]

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys are there.

        Raises:
            CollectiveTimeoutError: They are not in time.
            ChannelClosedError: The group was ended meanwhile.
        """
        timeout_s = self._timeout_s if timeout is None else timeout.total_seconds()
        deadline = time.monotonic() + timeout_s
        ready = self._waiter.until(lambda: self.check(keys), self._guard, deadline)
        if not ready:
            missing = [key for key in keys if key not in self._entries()]
            what = f"no rank published {missing}" if missing else "not all ranks came"
            msg = f"{what} within {timeout_s} s while the group formed"
            raise CollectiveTimeoutError(msg)

    def check(self, keys: list[str]) -> bool:
        """Tell whether all keys are there."""
        entries = self._entries()
        return all(key in entries for key in keys)

    def _guard(self) -> None:
        self._header.guard()

    def add(self, key: str, amount: int) -> int:
        """Add to a counter; returns the sum."""
        with self._exclusive():
            total = int(self._entries().get(key, b"0")) + amount
            self._append(key, str(total).encode())
        return total

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Store `desired` if the value is `expected`; returns the value afterwards."""
        with self._exclusive():
            current = self._entries().get(key)
            if current == _bytes(expected) or (current is None and not expected):
                current = _bytes(desired)
                self._append(key, current)
        return _bytes(expected) if current is None else current

    def delete_key(self, key: str) -> bool:
        """Forget a key; tells whether it was there."""
        with self._exclusive():
            found = key in self._entries()
            self._append(key, None)
        return found

    def num_keys(self) -> int:
        """Return how many keys are there."""
        return len(self._entries())

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long `get` and `wait` wait by default."""
        self._timeout_s = timeout.total_seconds()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with _lock:
            fd = self._header.segment.fd
            fcntl.lockf(fd, fcntl.LOCK_EX, 8, self._header.log, os.SEEK_SET)
            try:
                yield
            finally:
                fcntl.lockf(fd, fcntl.LOCK_UN, 8, self._header.log, os.SEEK_SET)

    def _append(self, key: str, value: bytes | None) -> None:
        """Append that `key` is `value` from now on, or is no more."""
        view, used = self._header.view, self._used()
        name = key.encode()
        length = _DELETED if value is None else len(value)
        entry = _ENTRY.pack(len(name), length) + name + (value or b"")
        if used + len(entry) > LOG_BYTES - 8:
            msg = f"the rendezvous of a group is limited to {LOG_BYTES} bytes"
            raise MemoryError(msg)
        place = self._start + used
        view[place : place + len(entry)] = entry
        fence()
        # One store of eight bytes: `struct.pack_into` clears its target first, and a reader that
        # looks in between finds the log empty.
        self._header.words[self._header.log // 8] = used + len(entry)
        self._header.ring_all()

    def _used(self) -> int:
        return self._header.words[self._header.log // 8]

    def _entries(self) -> dict[str, bytes]:
        used = self._used()
        fence()
        data = bytes(self._header.view[self._start : self._start + used])
        found: dict[str, bytes] = {}
        at = 0
        while at < len(data):
            key_bytes, value_bytes = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            key = data[at : at + key_bytes].decode()
            at += key_bytes
            if value_bytes == _DELETED:
                found.pop(key, None)
            else:
                found[key] = data[at : at + value_bytes]
                at += value_bytes
        return found


class MeshStore(SharedMemoryStore):
    """The same for ranks that each set their address, get those of all, and then connect.

    When the group ends meanwhile, all ranks get all addresses or none does: a rank that connects to
    one that has given up waits in gloo for 20 s and more, with its thread and its sockets.
    """

    def set(self, key: str, value: str | bytes) -> None:
        """Store this rank's address.

        Raises:
            ChannelClosedError: The group was ended.
        """
        with self._exclusive():
            self._header.guard()
            self._append(key, _bytes(value))

    def check(self, keys: list[str]) -> bool:
        """Tell whether all addresses are there, of which `keys` are some."""
        return len(self._entries()) >= self._header.world_size and super().check(keys)

    def _guard(self) -> None:
        if self._header.stopped():
            with self._exclusive():  # who would set later finds the group ended
                if not self.check([]):
                    self._header.guard()


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
