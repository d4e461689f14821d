"""Meetings of a group's ranks beside those of `Preflight`: a count on each rank's line.

They have a count of their own, written by its rank alone, since after a failure the ranks can have
gone to different numbers of these, but never of preflights: so those go on, and say that the group
failed.

Whoever finds that all have come goes on, whatever has happened to them since; whoever does not, and
the group is given up or ended, raises. A rank comes before it waits. So either all ranks that live
go on from a meeting, or none does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from collective.header import FAULTED, MEETINGS
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collective.header import GroupHeader
    from compiled_dag.shm.waiter import Waiter


class Meetings:
    """The meetings of one rank."""

    def __init__(
        self, header: GroupHeader, rank: int, waiter: Waiter, site: Site | None = None
    ) -> None:
        """Take part.

        Args:
            header: The group's.
            rank: This one.
            waiter: How it waits.
            site: Where; None for a place of their own.
        """
        ranks = range(header.world_size)
        lines = [header.line(other) + MEETINGS for other in ranks]
        self._header = header
        self._mine = lines.pop(rank)
        self._others = lines
        self._waiter = waiter
        self._site = site or Site()
        self._ring = header.bell_of([other for other in ranks if other != rank])
        self.count = 0
        """How many this rank has come to."""

    def meet(self) -> None:
        """Go to the next meeting.

        Raises:
            RuntimeError: Another rank has given the group up.
            ChannelClosedError: The driver has ended the group.
        """
        words = self._header.words
        count = self.count = self.count + 1
        if not STORES_STAY_IN_ORDER:
            fence()
        words[self._mine] = count
        fence()
        if all(words[line] >= count for line in self._others):
            self._ring()
        for line in self._others:
            while (seen := words[line]) < count:
                self._waiter.word(words, line, seen, self._guard, None, self._site)
        if not STORES_STAY_IN_ORDER:
            fence()

    def _guard(self) -> None:
        if self._header.state == FAULTED:
            msg = "another rank has given the group up"
            raise RuntimeError(msg)
        self._header.guard()
