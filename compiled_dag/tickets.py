"""The driver's side of the order in which several graphs take their turns on shared actors.

Every process that compiles graphs has one `Tickets` per session. A graph joins it when it is
compiled; where it meets others on an actor, a ring of tickets is made (`channel.ticket_ring`) and
from then on each execution of all of them takes a ticket there before its first input is shown.

An issue is atomic: all of its tickets and the inputs are shown under one lock. What Ctrl-C breaks
off the next issue, of any graph, settles: if no input was shown, the tickets are taken back.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from compiled_dag.channel.ticket_ring import MAX_KEY, SLOTS, TicketRing
from compiled_dag.errors import CapacityExceededError, GraphError
from compiled_dag.turns import TicketPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from compiled_dag.host import ActorId, Host

_ring_ids = itertools.count(1)

_Issue: TypeAlias = "tuple[int, Callable[[int], bool], list[tuple[TicketRing, int]]]"
"""Tickets being written: for which execution, whether an input of it was shown, and where."""


class Member:
    """One graph among those of its driver."""

    def __init__(self, tickets: Tickets, graph_id: int) -> None:
        self.graph_id = graph_id
        self.places: tuple[tuple[_SharedActor, int], ...] = ()
        """The actors it shares, each with its key there: usually none. Changes when graphs join."""
        self.lock = threading.RLock()
        """Held by whoever sends one of its executions."""
        self.next_execution: Callable[[], int] = _none_yet
        """Tells the number of the next one; set by what sends them."""
        self._tickets = tickets

    def require_room(self) -> None:
        """Refuse an execution that finds a ring full.

        Raises:
            CapacityExceededError: An actor has not begun thousands of executions of its graphs.
        """
        for shared, _ in self.places:
            if shared.ring.is_full:
                msg = (
                    f"{SLOTS} executions of the graphs that share actor {shared.label} wait for "
                    "it. Get results before executing more"
                )
                raise CapacityExceededError(msg)

    def issue(
        self, execution: int, publish: Callable[[], None], published: Callable[[int], bool]
    ) -> None:
        """Take a ticket for `execution` on every shared actor, and show the inputs.

        Args:
            execution: Its number.
            publish: Shows them.
            published: Tells whether an input of this execution was shown.
        """
        self._tickets.issue(self.places, execution, publish, published)


@dataclass(slots=True)
class _SharedActor:
    """An actor with several graphs of this driver."""

    label: str
    ring: TicketRing
    ring_id: int
    keys: dict[int, int] = field(default_factory=dict)
    bases: dict[int, int] = field(default_factory=dict)
    last_key: int = 0

    def part(self) -> TicketPart:
        """Return what the actor is told."""
        return TicketPart(ring_id=self.ring_id, keys=dict(self.keys), bases=dict(self.bases))


class Tickets:
    """The graphs that this process drives in one session, and the actors they share."""

    _of_hosts: ClassVar[weakref.WeakKeyDictionary[Any, Tickets]] = weakref.WeakKeyDictionary()
    _making = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._members: dict[ActorId, list[Member]] = defaultdict(list)
        self._shared: dict[ActorId, _SharedActor] = {}
        self._open: _Issue | None = None
        """What is being issued; between two issues: what was broken off."""

    @classmethod
    def of(cls, host: Host) -> Tickets:
        """Return this process's tickets in a session."""
        with cls._making:
            return cls._of_hosts.setdefault(host, cls())

    def join(
        self, member: Member, host: Host, actors: Mapping[ActorId, tuple[str, int]]
    ) -> dict[ActorId, tuple[TicketPart, TicketRing]]:
        """Have a graph that is being compiled take its place among the others.

        Args:
            member: The graph.
            host: The session.
            actors: By actor of the graph, its label and its line on the board.

        Returns:
            What each actor that it shares is to be told, and the ring whose memory it needs.
        """
        with self._lock:
            others = {id(one): one for actor in actors for one in self._members[actor]}
            for actor in actors:
                self._members[actor].append(member)
        with ExitStack() as stack:
            # None of them sends while its first execution with a ticket is settled. Graphs that
            # join meanwhile send nothing yet.
            for other in sorted(others.values(), key=lambda one: one.graph_id):
                stack.enter_context(other.lock)
            with self._lock:
                return {
                    actor: self._share(actor, host, label, line)
                    for actor, (label, line) in actors.items()
                    if len(self._members[actor]) > 1
                }

    def _share(
        self, actor: ActorId, host: Host, label: str, line: int
    ) -> tuple[TicketPart, TicketRing]:
        """Have all graphs of an actor take tickets there from now on."""
        shared = self._shared.get(actor)
        if shared is None:
            ring = TicketRing(host.board, line)
            shared = self._shared[actor] = _SharedActor(
                label, ring, host.process << 32 | next(_ring_ids)
            )
        for member in self._members[actor]:
            if member.graph_id not in shared.keys:
                key = shared.last_key = shared.last_key + 1
                if key > MAX_KEY:
                    msg = f"actor {label} has had {MAX_KEY} graphs while one of them stayed alive"
                    raise GraphError(msg)
                shared.keys[member.graph_id] = key
                shared.bases[member.graph_id] = member.next_execution()
                member.places = (*member.places, (shared, key))
        return shared.part(), shared.ring

    def leave(self, member: Member) -> None:
        """Forget a graph that has ended. Idempotent."""
        member.next_execution = _none_yet  # what sends them refers to the member: no cycle is left
        with self._lock:
            for actor in [actor for actor, there in self._members.items() if member in there]:
                self._members[actor].remove(member)
                shared = self._shared.get(actor)
                if shared is not None:
                    shared.keys.pop(member.graph_id, None)
                    shared.bases.pop(member.graph_id, None)
                if not self._members[actor]:
                    del self._members[actor]
                    if shared is not None:
                        self._shared.pop(actor).ring.close()

    def issue(
        self,
        places: Iterable[tuple[_SharedActor, int]],
        execution: int,
        publish: Callable[[], None],
        published: Callable[[int], bool],
    ) -> None:
        """Write tickets and show inputs; see `Member.issue`."""
        with self._lock:
            if self._open is not None:
                self._settle(self._open)
            written: list[tuple[TicketRing, int]] = []
            self._open = execution, published, written
            for shared, key in places:
                ring = shared.ring
                written.append((ring, ring.issued))
                ring.issue(key, execution)
            publish()
            self._open = None

    def _settle(self, issue: _Issue) -> None:
        """Take back the tickets of an issue that was broken off before an input was shown."""
        execution, published, written = issue
        if not published(execution):
            for ring, position in written:
                ring.take_back(position)
        self._open = None


def _none_yet() -> int:
    """Return the number of the first execution."""
    return 0
