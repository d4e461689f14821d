"""An actor's turns in several graphs of one driver: in the order of their tickets.

Two graphs that share actors would wait for each other for ever if one actor began with the one and
another actor with the other: an execution that has begun runs to its end, and may need what the
other actor sends. So every shared actor takes its turns in one order, the driver's
(`compiled_dag.tickets`). That no execution waits for ever follows: take the first unfinished one in
that order; all its actors have finished with what comes before it, and it is free of deadlocks by
itself (`compiled_dag.simulate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from compiled_dag.channel.ticket_ring import TicketReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from compiled_dag.shm.waiter import Source


class TicketedResident(Protocol):
    """A resident program, as its turns are counted."""

    @property
    def key(self) -> int:
        """The graph's number."""
        ...

    @property
    def execution(self) -> int:
        """The next execution."""
        ...

    @property
    def ready(self) -> Callable[[], bool]:
        """Tells whether that execution can start."""
        ...

    @property
    def ended(self) -> bool:
        """Whether its graph has ended: it has no turn any more."""
        ...

    def run(self) -> bool:
        """Run it; returns False once the graph has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPart:
    """What an actor is told of the tickets when a graph joins the others there."""

    ring_id: int
    keys: Mapping[int, int]
    """By graph: its key on the tickets."""
    bases: Mapping[int, int]
    """By graph that was there alone before: its first execution that has a ticket."""


class Turns:
    """Several resident programs as one: a `compiled_dag.loop.Resident`."""

    def __init__(self, ring_id: int, fd: int) -> None:
        """Begin with no program; owns `fd`."""
        self.key = -ring_id  # keys of graphs are positive
        self._tickets = TicketReader(fd)
        self._by_key: dict[int, TicketedResident] = {}
        self._early: list[tuple[TicketedResident, int]] = []
        """Programs with executions from before the tickets began: they come first."""
        self._next: TicketedResident | None = None

    def add(self, part: TicketPart, residents: Iterable[TicketedResident]) -> None:
        """Take in those of `residents` that `part` names and that are not here yet."""
        for resident in residents:
            key = part.keys.get(resident.key)
            if key is not None and key not in self._by_key:
                self._by_key[key] = resident
                if resident.execution < part.bases.get(resident.key, 0):
                    self._early.append((resident, part.bases[resident.key]))

    def remove(self, graph_id: int) -> None:
        """Drop the program of a graph, if it is here."""
        self._by_key = {k: one for k, one in self._by_key.items() if one.key != graph_id}
        self._early = [early for early in self._early if early[0].key != graph_id]
        self._next = None

    def close(self) -> None:
        """Drop all programs."""
        self._by_key, self._early, self._next = {}, [], None

    @property
    def is_empty(self) -> bool:
        """Whether no program is left."""
        return not self._by_key

    def ready(self) -> bool:
        """Tell whether the program whose turn it is can start."""
        self._next = self._find()
        return self._next is not None and self._next.ready()

    def source(self) -> Source | None:
        """Return the word that changes when there is a turn; only right after `ready` was false.

        None where there is one that cannot begin yet: its ticket may still be taken back.
        """
        return self._tickets.source() if self._next is None else None

    def run(self) -> bool:
        """Run the execution whose turn it is; the graph that has ended has none any more."""
        resident, self._next = self._next, None
        if resident is not None and not resident.run():
            self.remove(resident.key)
        return True

    def _find(self) -> TicketedResident | None:
        """Return whose turn it is, after passing over the turns of graphs that have ended."""
        while self._early:
            resident, base = self._early[0]
            if resident.execution < base and not resident.ended:
                return resident
            del self._early[0]
        while (ticket := self._tickets.next()) is not None:
            key, execution = ticket
            found = self._by_key.get(key)
            if found is not None and found.execution <= execution and not found.ended:
                return found
            self._tickets.pass_over()
        return None
