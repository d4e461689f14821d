"""Carry one pickled value at a time between two processes: the floor's only mechanism.

Layout of a slot, little more than a real channel cannot do without:

    offset  size  what                                    who writes it
    0       4     seq: one more with every value          sender
    4       4     parked: a receiver sleeps on seq        receivers, and the sender: no longer
    8       4     parts: how many buffers the value has   sender
    16      112   length of each part (u64)               sender
    128           the parts, each on a 64-byte boundary   sender

Nothing tells the sender that the slot is free again. It need not: one value is in flight, and a
stage sends only after it has unpickled what it received. Any number of receivers may read a slot.

**Order.** The parts are stored before seq. x86-64 keeps stores in order; on aarch64 nothing
orders them here, except that the lock below comes between this value's seq and the next value's
parts, so figures from there want a look at the echoed values (each side's first is checked).
**No lost wake-up.** The sender stores seq, then looks at `parked`; the receiver stores `parked`,
then the kernel looks at seq. Taking and releasing a lock is the sender's fence between the two
(an atomic instruction, a full barrier on x86-64); were it missing, a sleep would last one slice. So
it would where one receiver parks for the next value while the sender, who was held up for as long
as that receiver needed for this one, is between seeing another parked and waking all.

**Waiting.** Look a few times, then yield the core while that comes back quickly, then sleep. A
single slow yield means that somebody who never yields has the core: the next waits sleep at once,
twice as many each time it happens again. This penalty has to decay. Without decay one early slow
yield leaves a process sleeping for good, and the floor reads several times too high.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import platform
from threading import Lock
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

SLOT_BYTES = 1 << 16
LOOKS = 20
YIELD_BUDGET_NS = 200_000
SLOW_YIELD_NS = 500_000
GOOD_WAITS = 8
"""How many quick waits take one step of the penalty back."""
MAX_BACKOFF = 10
SLICE_NS = 250_000_000
"""How long one sleep lasts at most."""

_SEQ, _PARKED, _PARTS = 0, 1, 2
_FIRST_LENGTH = 2
_PAYLOAD = 128
_MAX_PARTS = (_PAYLOAD // 8) - _FIRST_LENGTH
_FUTEX_WAIT, _FUTEX_WAKE, _ALL = 0, 1, 0x7FFFFFFF
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}

_FUTEX = _SYS_FUTEX[platform.machine()]
_syscall = ctypes.CDLL(None, use_errno=True).syscall


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_SLICE = ctypes.byref(_Timespec(0, SLICE_NS))


class Penalty:
    """Decide whether a wait may yield, from how earlier yields went."""

    __slots__ = ("_backoff", "_good", "skips")

    def __init__(self) -> None:
        """Start with no penalty."""
        self.skips = 0
        """How many of the next waits go to sleep without yielding."""
        self._backoff = 0
        self._good = 0

    def slow(self) -> None:
        """Note a yield that took too long: skip twice as many waits as last time."""
        self._backoff = min(self._backoff + 1, MAX_BACKOFF)
        self.skips = 1 << self._backoff
        self._good = 0

    def quick(self) -> None:
        """Note a wait that ended within its yields."""
        self._good += 1
        if self._good == GOOD_WAITS:
            self._good = 0
            self._backoff = max(self._backoff - 1, 0)


class Slot:
    """One end of one hop; a process uses it either to send or to receive."""

    __slots__ = ("_address", "_bytes", "_fence", "_idle", "_lengths", "_penalty", "_seen", "_words")

    def __init__(
        self, memory: mmap.mmap, index: int, idle: Callable[[int], None], size: int = SLOT_BYTES
    ) -> None:
        """Take the slot number `index` of `memory`.

        `idle` is called after each slice slept through, with how many there were in this wait.
        """
        begin = index * size
        self._bytes = memoryview(memory)[begin : begin + size]
        self._words = self._bytes[:_PAYLOAD].cast("I")
        self._lengths = self._bytes[:_PAYLOAD].cast("Q")
        self._address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory, begin)))
        self._fence = Lock()
        self._idle = idle
        self._penalty = Penalty()
        self._seen = 0  # not the current seq: the sender may have been quicker than this process

    def put(self, value: object) -> None:
        """Publish `value`."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
        end = _PAYLOAD + len(pickled)
        self._bytes[_PAYLOAD:end] = pickled
        words = self._words
        words[_PARTS] = 1
        self._lengths[_FIRST_LENGTH] = len(pickled)
        if buffers:
            self._put_buffers(buffers, end)
        words[_SEQ] = (words[_SEQ] + 1) & 0xFFFFFFFF
        with self._fence:
            pass
        if words[_PARKED]:
            words[_PARKED] = 0
            _futex(self._address, _FUTEX_WAKE, _ALL, None)

    def signal(self) -> None:
        """Publish that there is something new, without a value."""
        words = self._words
        words[_SEQ] = (words[_SEQ] + 1) & 0xFFFFFFFF
        with self._fence:
            pass
        if words[_PARKED]:
            words[_PARKED] = 0
            _futex(self._address, _FUTEX_WAKE, _ALL, None)

    def await_signal(self) -> None:
        """Wait for one more signal; none is lost, also if several came meanwhile."""
        seen = self._seen
        if self._words[_SEQ] == seen:
            self._wait()
        self._seen = (seen + 1) & 0xFFFFFFFF

    def take(self) -> object:
        """Wait for the next value; its buffers are views into the slot."""
        words = self._words
        if words[_SEQ] == self._seen:
            self._wait()
        self._seen = words[_SEQ]
        end = _PAYLOAD + self._lengths[_FIRST_LENGTH]
        pickled = self._bytes[_PAYLOAD:end]
        if words[_PARTS] == 1:
            return pickle.loads(pickled)
        return pickle.loads(pickled, buffers=self._take_buffers(end))

    def close(self) -> None:
        """Let go of the memory; the value last taken must not hold a view of it."""
        for view in (self._words, self._lengths, self._bytes):
            view.release()

    def _put_buffers(self, buffers: list[pickle.PickleBuffer], end: int) -> None:
        if len(buffers) >= _MAX_PARTS:
            raise ValueError(f"a slot carries at most {_MAX_PARTS - 1} buffers")
        for part, buffer in enumerate(buffers, start=1):
            raw = buffer.raw()
            begin = _aligned(end)
            end = begin + len(raw)
            self._bytes[begin:end] = raw
            self._lengths[_FIRST_LENGTH + part] = len(raw)
        self._words[_PARTS] = 1 + len(buffers)

    def _take_buffers(self, end: int) -> list[memoryview]:
        buffers: list[memoryview] = []
        for part in range(1, self._words[_PARTS]):
            begin = _aligned(end)
            end = begin + self._lengths[_FIRST_LENGTH + part]
            buffers.append(self._bytes[begin:end])
        return buffers

    def _wait(self) -> None:
        words, seen = self._words, self._seen
        for _ in range(LOOKS):
            if words[_SEQ] != seen:
                return
        if self._penalty.skips:
            self._penalty.skips -= 1
        elif self._yielded():
            return
        self._sleep()

    def _yielded(self) -> bool:
        words, seen, now, give_way = self._words, self._seen, perf_counter_ns, os.sched_yield
        before = now()
        limit = before + YIELD_BUDGET_NS
        while words[_SEQ] == seen:
            give_way()
            after = now()
            if after - before > SLOW_YIELD_NS:
                self._penalty.slow()
                return False
            if after > limit:
                return False
            before = after
        self._penalty.quick()
        return True

    def _sleep(self) -> None:
        words, seen, slices = self._words, self._seen, 0
        while words[_SEQ] == seen:
            words[_PARKED] = 1
            _futex(self._address, _FUTEX_WAIT, seen, _SLICE)
            if words[_SEQ] == seen:
                slices += 1
                self._idle(slices)


def _aligned(offset: int) -> int:
    return (offset + 63) & ~63


def _futex(address: ctypes.c_void_p, operation: int, value: int, timeout: object) -> None:
    _syscall(_FUTEX, address, operation, value, timeout, None, 0)
