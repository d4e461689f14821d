"""How one rank stands in its group: what it is told, whether the group still is, and what ends it.

The driver keeps the first cause of a group's end, which is what every rank raises from then on
(`collective.groups`).
"""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from collective.header import CLOSED, OPEN, PEER, GroupHeader
from compiled_dag.errors import CollectiveError, CollectiveTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collective.home import Home
    from collective.process_group import ProcessGroup
    from compiled_dag.shm.waiter import Guard, Site

AGAIN: Final = "The group is broken: destroy it, and create it again"
_SLEEPS: Final = 10
"""Of a tenth of a second, after which a wait is long enough to be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPart:
    """What a rank needs to join a group."""

    group_id: int
    name: str
    rank: int
    processes: tuple[int, ...]
    """Board line of each rank."""
    labels: tuple[str, ...]
    """What messages call each rank's actor."""
    backend: str
    may_fall_back: bool
    """Whether gloo will do where "cuda_ipc" is refused."""
    made_by: Any
    """A class registered for the backend (`collective.backends`), or None."""
    timeout_s: float
    """Of every operation."""
    join_timeout_s: float


class BrokenError(Exception):
    """The group is to be broken."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Standing:
    """What the operations of one rank share. Any thread may use it."""

    def __init__(
        self, home: Home, part: MemberPart, header: GroupHeader, backend: ProcessGroup
    ) -> None:
        """Begin in an open group.

        Args:
            home: The way to the session's groups.
            part: Which rank of what.
            header: The group's header.
            backend: What carries its operations.
        """
        self.home = home
        self.part = part
        self.header = header
        self.closed = False
        """Whether this rank has left."""
        self.ends_waits = False
        """Whether it has left for good: what of it still waits for others is broken off."""
        self._backend = backend
        self._sleeps = 0
        self._failure: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether the group was destroyed from outside, or left."""
        return self.closed or self.header.state == CLOSED

    def begin(self, text: str) -> float:
        """Refuse what cannot be done any more; returns when to give up."""
        self._sleeps = 0
        if self.closed:
            raise self.destroyed(text)
        if self.header.state != OPEN:
            raise self.ended(text)
        return time.monotonic() + self.part.timeout_s

    def look(self) -> None:
        """Look, in a wait, whether the group still is; have long waits looked at.

        Raises:
            ChannelClosedError: It has ended.
            BrokenError: This rank itself has left, on another thread.
        """
        if self.ends_waits:
            raise BrokenError(self.left("an operation", [self.part.rank]))
        self.header.guard()
        self._sleeps += 1
        if self._sleeps == _SLEEPS:
            self.home.arm_reports()

    def guard(self) -> None:
        """Look also whether somebody who is waited for has left.

        Raises:
            ChannelClosedError: The group has ended.
            BrokenError: Somebody has left.
        """
        self.look()
        header, rank = self.header, self.part.rank
        left = [other for other in range(header.world_size) if header.has_left(other)]
        if left and (gone := set(header.late(rank)).intersection(left)):
            raise BrokenError(self.left("an operation", sorted(gone)))

    def fail(self, error: Exception) -> NoReturn:
        """Break the group for all ranks, unless it is broken; raises the first cause of that."""
        failure = self.home.ask("fail", self.part.group_id, error)
        self._backend.abort()
        self._failure = failure
        raise copy.copy(failure)

    def interrupted(self, text: str) -> None:
        """Break the group because this rank leaves an operation in the middle."""
        who = self.name(self.part.rank)
        error = CollectiveError(f"{self.of(text)}: {who} was interrupted in it. {AGAIN}")
        self.home.tell("fail", self.part.group_id, error)
        self._backend.abort()

    def ended(self, text: str) -> BaseException:
        """Return why the group has ended; no peer has to wait for this rank any more."""
        self._backend.abort()
        if self._failure is None:
            self._failure = self.home.ask("failure", self.part.group_id)
        return self.destroyed(text) if self._failure is None else copy.copy(self._failure)

    # --- what is said

    def of(self, text: str) -> str:
        """Return what messages call an operation of this group."""
        return f"{text} of group {self.part.name!r}"

    def name(self, rank: int) -> str:
        """Return what messages call a rank."""
        return f"rank {rank} ({self.part.labels[rank]})"

    def destroyed(self, text: str) -> CollectiveError:
        """Return what an operation raises after the group's end."""
        return CollectiveError(f"{text}: group {self.part.name!r} was destroyed")

    def late(self, text: str, ranks: Sequence[int]) -> CollectiveTimeoutError:
        """Return what is raised where ranks did not come."""
        missing = ", ".join(map(self.name, ranks))
        return CollectiveTimeoutError(
            f"{self.of(text)}: {missing} did not come within {self.part.timeout_s} s after "
            f"{self.name(self.part.rank)}, the group's timeout_s. {AGAIN}"
        )

    def left(self, text: str, ranks: Sequence[int]) -> CollectiveError:
        """Return what is raised where ranks have left."""
        gone = ", ".join(map(self.name, ranks))
        return CollectiveError(
            f"{self.of(text)}: {gone} has left the group (destroy_collective_group). {AGAIN}"
        )


class Noted:
    """While it is entered the main thread is known to wait in the group."""

    __slots__ = ("_home", "_id", "_peer", "_place", "_words")

    def __init__(self, home: Home, header: GroupHeader, part: MemberPart, peer: int) -> None:
        self._home = home
        self._id = part.group_id
        self._words = header.words
        self._place = header.line(part.rank) + PEER
        self._peer = peer

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._words[self._place] = self._peer + 1
            self._home.note_wait(self._id)

    def __exit__(self, *_: object) -> None:
        self._home.note_wait(0)


class Patience:
    """How a backend waits for other ranks: until the operation's deadline, on any thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.deadline: float | None = None

    def word(
        self,
        words: memoryview,
        index: int,
        seen: int,
        guard: Guard,
        _deadline: float | None,
        site: Site | None,
    ) -> bool:
        """Wait until ``words[index] != seen``; see `Waiter.word`.

        Raises:
            TimeoutError: It did not change in time.
        """
        if not self._home.waiter.word(words, index, seen, guard, self.deadline, site):
            raise TimeoutError
        return True

    def until(
        self,
        ready: Callable[[], bool],
        guard: Guard,
        deadline: float | None,
        site: Site | None = None,
    ) -> bool:
        """Wait until `ready()`; see `Waiter.until`."""
        return self._home.waiter.until(ready, guard, deadline, site)

    def until_soon(self, ready: Callable[[], bool], site: Site) -> bool:
        """See `Waiter.until_soon`."""
        return self._home.waiter.until_soon(ready, site)

    def learn(self, site: Site, start: float, *, soon: bool) -> None:
        """See `Waiter.learn`."""
        self._home.waiter.learn(site, start, soon=soon)

    def twin(self) -> Patience:
        """Return it itself: every thread waits by a waiter of its own."""
        return self
