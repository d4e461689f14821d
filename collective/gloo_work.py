"""An operation of gloo under way, and how a rank waits for it and for the others.

Being woken by gloo's thread takes longer than a small operation's work. So a rank first yields, as
everywhere, as long as operations end in that time. Ranks that outnumber the cores yield in their
meetings only while operations take less than `_LONG_S`: an allreduce of 4 B among 4 ranks on 2
cores takes 0.5 ms so and 0.7 asleep, but one of 80 KB 1.7 ms and 1.5, as gloo's threads have to get
on then.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from collective.header import OPEN
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from collective.header import GroupHeader
    from collective.meetings import Meetings
    from compiled_dag.shm.waiter import Waiter

_LOOK: Final = timedelta(milliseconds=100)
"""How often a wait looks whether the group still is."""

_LONG_S: Final = 800e-6
"""An operation is long that a rank waits for so long."""


class Waiting:
    """How a rank waits for gloo, and then for the others: see the module's head."""

    def __init__(self, waiter: Waiter, meetings: Meetings, site: Site, *, crowded: bool) -> None:
        """Begin.

        Args:
            waiter: The rank's.
            meetings: Where the ranks meet when gloo is done.
            site: Where they wait for each other, also before gloo begins.
            crowded: Whether there are more ranks than cores.
        """
        self.meetings = meetings
        self._waiter = waiter
        self._for_gloo = Site()
        self._for_ranks = site
        self._crowded = crowded

    def until_soon(self, ready: Callable[[], bool]) -> bool:
        """Yield until gloo is done; False if it is to wake this thread."""
        return self._waiter.until_soon(ready, self._for_gloo)

    def learn(self, start: float, *, soon: bool) -> None:
        """Count a wait for gloo that began at `start` (`soon`: and ended without being woken)."""
        if not soon:
            self._waiter.learn(self._for_gloo, start, soon=True)
        self._for_ranks.calm = self._crowded and time.monotonic() - start > _LONG_S


class GlooWork:
    """An operation of gloo, whose wait ends when the group does, and well on all ranks or on none.

    The ranks wait for their operations in one order, like they start them.
    """

    def __init__(
        self,
        work: Any,
        header: GroupHeader,
        waiting: Waiting,
        finish: Callable[[], object] | None = None,
    ) -> None:
        """Watch over `work`.

        Args:
            work: gloo's.
            header: The group's header.
            waiting: How the rank waits.
            finish: What is left to be done after it.
        """
        self._work = work
        self._header = header
        self._waiting = waiting
        self._finish = finish
        self._done = False
        """Whether it was waited for: some operations of gloo never say so of themselves."""

    def wait(self, deadline: float | None = None) -> None:
        """Finish it.

        Raises:
            RuntimeError: It failed, here or on another rank.
            ChannelClosedError: The driver has ended the group.
            TimeoutError: It has not ended by `deadline`.
        """
        waiting = self._waiting
        start = time.monotonic()
        soon = waiting.until_soon(self._work.is_completed)
        over = False
        while not self._finishes_soon():
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            if over:
                self._header.guard()
                msg = "another rank has given the group up"
                raise RuntimeError(msg)
            # Once more: a failure of its own, which lets it close its sockets, is the usual end.
            over = self._header.state != OPEN
        waiting.learn(start, soon=soon)
        waiting.meetings.meet()
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()
        self._done = True

    def _finishes_soon(self) -> bool:
        try:
            self._work.wait(_LOOK)
        except RuntimeError:
            if not self.is_completed():
                return False
            self._work.wait()  # raises what went wrong, unless it has just ended well
        return True

    def is_completed(self) -> bool:
        """Tell whether gloo is done with it."""
        return self._done or bool(self._work.is_completed())
