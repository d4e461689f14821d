"""The session's board: one line per process, mapped by all of them.

::

    line i (256 bytes)      written by
    +0    u32 doorbell      process i sets a token before it sleeps; any sender clears and wakes
    +64   u64 mailbox       the driver, after it sent a message on process i's socket
    +128  u64 claimed       process i, before it begins a call or task (see `runtime.pool`)
    +136  u64 claimed at    process i: when (monotonic, ns)
    +144  u64 awaited       process i: the reference that a `get` on its main thread waits for, or
                            GROUP_BIT and the collective group that it waits in, or ACTOR_BIT
                            and the actor that is to do something for its graph, or 0
    +152  u64 awaited at    process i: since when (monotonic, ns)
    +160  u64 concurrent    process i: 1 if its calls run elsewhere than on its main thread
    +168  u64 sent          process i: twice the messages it has sent, and 1 while it waits for
                            room to send the rest of one
    +176  u64 forks         process i: how often it has forked children that see what it sees
    +192  u64 revoked       the driver
    +200  u64 cancelled     the driver, before it sends the signal that interrupts a task
    +208  u64 cancels       the driver: how many messages say what not to begin

The doorbell is how a process sleeps in one place, whatever it waits for. The protocol:

* the owner stores a new non-zero token, fences, looks at everything it waits for once more, and
  sleeps on the word as long as it holds that token;
* a sender publishes, fences, and if the word is not zero stores zero and wakes all sleepers.

No wake-up is lost. Either the sender's load sees the token, then it wakes the owner (or changes
the word before the owner falls asleep, and the futex returns at once); or it does not, then the
owner's token came later than the sender's publication, and the owner's look after its fence sees
it. Several threads of one process may sleep: each stores its own token, so one that finds another
token in the word does not fall asleep on it but looks again; the last one to leave stores zero.
A sender that dies between clearing and waking costs one slice of the waiter's patience (0.1 s).
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from typing import TYPE_CHECKING, Final

from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, Timespec, fence, futex_wait, futex_wake
from compiled_dag.shm.segment import Mapping, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

LINE: Final = 256
_U32_PER_LINE: Final = LINE // 4
_U64_PER_LINE: Final = LINE // 8
_MAILBOX_U64: Final = 8
CLAIMED: Final = 16
CLAIMED_AT: Final = 17
AWAITED: Final = 18
AWAITED_AT: Final = 19
CONCURRENT: Final = 20
SENT: Final = 21
FORKS: Final = 22
GROUP_BIT: Final = 1 << 62
"""Marks, in AWAITED, the number of a group."""
ACTOR_BIT: Final = 1 << 61
"""Marks, in AWAITED, the number of an actor."""
REVOKED: Final = 24
CANCELLED: Final = 25
CANCELS: Final = 26
CAPACITY: Final = 4096
"""Processes alive in one session; lines are used in turn, so whoever had one is long dead."""


class Board:
    """A mapping of the board in this process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._mapping = Mapping(fd, 0, CAPACITY * LINE)
        view = self._mapping.view()
        self.bells = view.cast("I")
        """Doorbell of process i at ``bells[bell_index(i)]``."""
        self.words = view.cast("Q")

    @staticmethod
    def create() -> Segment:
        """Make the memory of a board; the caller owns the segment."""
        return Segment.create("compiled-dag-board", CAPACITY * LINE)

    @staticmethod
    def bell_index(process: int) -> int:
        """Return where in `bells` the doorbell of `process` is."""
        return process * _U32_PER_LINE

    @staticmethod
    def mailbox_index(process: int) -> int:
        """Return where in `words` the mailbox count of `process` is."""
        return process * _U64_PER_LINE + _MAILBOX_U64

    @staticmethod
    def word_index(process: int, word: int) -> int:
        """Return where in `words` a word of `process` is: CLAIMED and those below it."""
        return process * _U64_PER_LINE + word

    def bell_address(self, process: int) -> ctypes.c_void_p:
        """Return the address of a doorbell, for the futex."""
        return ctypes.c_void_p(self._mapping.address + process * LINE)

    def ring(self, process: int) -> None:
        """Wake `process` if it sleeps, after something was published for it."""
        fence()
        index = process * _U32_PER_LINE
        if self.bells[index]:
            self.bells[index] = 0
            futex_wake(self.bell_address(process))

    def ring_each(self, processes: Iterable[int]) -> None:
        """Wake those of `processes` that sleep, after something was published for all of them."""
        fence()
        self.wake_each(processes)

    def wake_each(self, processes: Iterable[int]) -> None:
        """Do the same behind a fence that the caller has passed."""
        bells = self.bells
        for process in processes:
            index = process * _U32_PER_LINE
            if bells[index]:
                bells[index] = 0
                futex_wake(self.bell_address(process))

    def post(self, process: int, count: int) -> None:
        """Announce that message number `count` was sent to `process`, and wake it."""
        self.words[process * _U64_PER_LINE + _MAILBOX_U64] = count
        self.ring(process)


class Doorbell:
    """The owner's side of one doorbell; threads of the owning process share it."""

    def __init__(self, board: Board, process: int) -> None:
        self._board = board  # keeps the mapping alive
        self._bells = board.bells
        self._index = board.bell_index(process)
        self._address = board.bell_address(process)
        self._tokens = itertools.count(1)
        self._sleepers = 0
        self._lock = threading.Lock()

    def arm(self) -> int:
        """Announce that this thread is about to sleep; look again, then `sleep`, then `disarm`."""
        with self._lock:
            token = next(self._tokens) & 0xFFFFFFFF or next(self._tokens) & 0xFFFFFFFF
            self._sleepers += 1
            self._bells[self._index] = token
        if not STORES_STAY_IN_ORDER:  # on x86-64 giving the lock back was the fence
            fence()
        return token

    def sleep(self, token: int, timeout: Timespec) -> None:
        """Sleep until rung or `timeout`."""
        futex_wait(self._address, token, timeout)

    def disarm(self) -> None:
        """Announce that this thread is awake."""
        with self._lock:
            self._sleepers -= 1
            if not self._sleepers:
                self._bells[self._index] = 0
