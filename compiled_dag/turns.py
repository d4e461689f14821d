"""An actor's turns in several graphs of one driver: in the order of their tickets.

Two graphs that share actors would wait for each other for ever if one actor began with the one and
another actor with the other: an execution that has begun runs to its end, and may need what the
other actor sends. So every shared actor takes its turns in one order, the driver's
(`compiled_dag.tickets`). That no execution waits for ever follows: take the first unfinished one in
that order; all its actors have finished with what comes before it, and it is free of deadlocks by
itself (`compiled_dag.simulate`).

A ticket gives a graph all turns until the next one. An execution whose first input is there belongs
to them if there is no next ticket *then*: the one that would end them is written before the inputs
of any later execution, of whichever graph, are shown to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from compiled_dag.channel.ticket_ring import TicketReader
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from compiled_dag.shm.waiter import Source


class FirstInput(Protocol):
    """The channel whose next message an execution of a program begins with."""

    words: memoryview
    sequence_word: int
    sequence: int
    """Messages taken."""


class TicketedResident(Protocol):
    """A resident program, as its turns are counted."""

    @property
    def number(self) -> int:
        """The graph's."""
        ...

    @property
    def execution(self) -> int:
        """The next execution."""
        ...

    @property
    def first(self) -> FirstInput:
        """What that execution begins with."""
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


class _Entry(NamedTuple):
    """A program with what `Turns` shows to the loop while it has the turns."""

    program: TicketedResident
    ready: Callable[[], bool]
    run: Callable[[], bool]


class Turns:
    """Several resident programs as one: a `compiled_dag.loop.Resident`.

    To the loop it is the program whose turns it is, as long as no ticket comes.
    """

    ready: Callable[[], bool]
    """Tells whether that program can start."""
    run: Callable[[], bool]
    """Runs an execution of it; returns False once its graph has ended."""

    def __init__(self, ring_id: int, fd: int) -> None:
        """Begin with no program; owns `fd`."""
        self.number = -ring_id  # those of graphs are positive
        self._tickets = TicketReader(fd)
        self._by_key: dict[int, _Entry] = {}
        self._holder_key = 0
        self._holder: TicketedResident | None = None
        """Whose turns it is; None before the first ticket, and if its graph is gone."""
        self._give_to(0)

    def add(self, part: TicketPart, residents: Iterable[TicketedResident]) -> None:
        """Take in those of `residents` that `part` names and that are not here yet."""
        for resident in residents:
            key = part.keys.get(resident.number)
            if key is not None and key not in self._by_key:
                self._by_key[key] = _Entry(resident, self._looking_at(resident), resident.run)
        self._give_to(self._holder_key)

    def remove(self, graph_id: int) -> None:
        """Drop the program of a graph, if it is here."""
        self._by_key = {k: one for k, one in self._by_key.items() if one.program.number != graph_id}
        self._give_to(self._holder_key)

    def close(self) -> None:
        """Drop all programs."""
        self._by_key = {}
        self._give_to(0)

    @property
    def is_empty(self) -> bool:
        """Whether no program is left."""
        return not self._by_key

    def leave(self) -> bool:
        """Drop the program that `run` has just found to have ended; returns False: others stay."""
        if self._holder is not None:
            self.remove(self._holder.number)
        return False

    def sources(self) -> tuple[Source, ...]:
        """Return the words that change when there is a turn; only right after `ready` was false.

        None where somebody's turns are to end after an execution that cannot begin yet: if the
        graph ends meanwhile it never will, which other words say.
        """
        tickets, holder = self._tickets, self._holder
        ticket = tickets.words, 0, tickets.taken
        if tickets.words[0] != tickets.taken:
            return ()
        if holder is None:
            return (ticket,)
        first = holder.first
        return (first.words, first.sequence_word, first.sequence), ticket

    def _looking_at(self, program: TicketedResident) -> Callable[[], bool]:
        """Return what tells whether it can start, to be used while it has the turns."""
        find, first, tickets = self._find, program.first, self._tickets
        words, word, issued = first.words, first.sequence_word, tickets.words

        def ready() -> bool:
            is_ready = words[word] != first.sequence
            if not STORES_STAY_IN_ORDER:
                fence()
            # After that look: see the module's head.
            return is_ready if issued[0] == tickets.taken else find()

        return ready

    def _give_to(self, key: int) -> None:
        """Give the turns to the graph of a key; to nobody if it is not here."""
        self._holder_key = key
        entry = self._by_key.get(key)
        if entry is None:
            self._holder, self.ready, self.run = None, self._find, _nothing
        else:
            self._holder, self.ready, self.run = entry

    def _find(self) -> bool:
        """Find whose turn it is, passing on to the next ticket where turns have ended."""
        tickets = self._tickets
        while True:
            holder = self._holder
            is_ready = False
            if holder is not None:
                first = holder.first
                is_ready = first.words[first.sequence_word] != first.sequence
            if not STORES_STAY_IN_ORDER:
                fence()
            ticket = tickets.next()
            if ticket is None:
                return is_ready
            key, ended = ticket
            if holder is not None and not holder.ended and holder.execution < ended:
                return is_ready
            tickets.take()
            self._give_to(key)


def _nothing() -> bool:
    """Run nothing: it is nobody's turn."""
    return True
