"""Futex calls and the memory fence, through libc.

The only two things CPython lacks for lock-free shared memory are a way to sleep on a word and a
fence. Sleeping is the futex system call. The fence is an uncontended lock taken and given back:

* x86-64 keeps stores in order by itself (payload before sequence needs nothing); only "store, then
  load another word" needs a fence, and the lock's atomic instruction is one.
* aarch64 orders nothing by itself. Taking a lock is an acquire, giving it back a release; doing
  both twice orders everything before the first release ahead of everything after the second
  acquire, because a release and a later acquire of one word are never swapped.

Were a fence missing, the damage is bounded: a waiter sleeps at most one slice (0.1 s) too long on
x86-64. On aarch64 `publish_fence` is what keeps a reader from seeing the sequence before the data.
"""

from __future__ import annotations

import ctypes
import os
import threading

_MACHINE = os.uname().machine
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}.get(_MACHINE, 202)
_FUTEX_WAIT = 0
_FUTEX_WAKE = 1
_ALL = 0x7FFFFFFF

# PyDLL would keep the GIL while asleep; CDLL gives it back. Arguments that the kernel does not read
# for these two operations are not passed, and none is wrapped: that took a sixth of a call.
_syscall = ctypes.CDLL(None).syscall
_lock = threading.Lock()

STORES_STAY_IN_ORDER = _MACHINE == "x86_64"


class Timespec(ctypes.Structure):
    """``struct timespec``: a relative time-out."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

    @classmethod
    def of(cls, seconds: float) -> Timespec:
        """Return `seconds` (not negative) as a timespec."""
        whole = int(seconds)
        return cls(whole, int((seconds - whole) * 1e9))


def futex_wait(address: ctypes.c_void_p, expected: int, timeout: Timespec) -> None:
    """Sleep until woken, `timeout`, or at once if the 32-bit word is not `expected`.

    Wakes for no reason too (signals): the caller looks again.
    """
    _syscall(_SYS_FUTEX, address, _FUTEX_WAIT, expected, ctypes.byref(timeout))


def futex_wake(address: ctypes.c_void_p) -> None:
    """Wake everybody who sleeps on the word."""
    _syscall(_SYS_FUTEX, address, _FUTEX_WAKE, _ALL)


def fence() -> None:
    """Order every earlier load and store before every later one (see the module's head)."""
    with _lock:
        pass
    if not STORES_STAY_IN_ORDER:
        with _lock:
            pass
