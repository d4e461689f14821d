"""The driver's side of the order in which several graphs take their turns on shared actors.

Every process that compiles graphs has one `Tickets` per session. A graph joins it when it is
compiled; where it meets others on an actor, a ring of tickets is made (`channel.ticket_ring`),
whose first ticket is the other graph's. From then on all that share an actor show their inputs
under one lock, and take tickets first where the turns are another graph's.

Ctrl-C may break this off anywhere. A ticket that no execution follows gives turns that nobody
takes. Whether an execution was issued is read from its inputs' channels, never remembered: if one
input was shown, the others are, before another graph takes the turns.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from compiled_dag.channel.ticket_ring import MAX_KEY, SLOTS, TicketRing
from compiled_dag.errors import CapacityExceededError, GraphError
from compiled_dag.interrupts import whole
from compiled_dag.turns import TicketPart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiled_dag.host import ActorId, Host

_ring_ids = itertools.count(1)


class Inputs(Protocol):
    """What shows the inputs of a graph's executions."""

    def complete(self) -> int:
        """Show all inputs of an execution of which one was shown; called under `Tickets.lock`.

        Returns:
            How many executions were shown.
        """
        ...


class Member:
    """One graph among those of its driver."""

    def __init__(self, tickets: Tickets, graph_id: int) -> None:
        self.graph_id = graph_id
        self.places: tuple[tuple[_SharedActor, int], ...] = ()
        """The actors it shares, each with its key there: usually none. Changes when graphs join."""
        self.lock = threading.RLock()
        """Held by whoever sends one of its executions."""
        self.inputs: Inputs | None = None
        """Set by what sends executions: none was sent before."""
        self.tickets = tickets


@dataclass(slots=True)
class _SharedActor:
    """An actor with several graphs of this driver."""

    label: str
    ring: TicketRing
    ring_id: int
    members: dict[int, Member] = field(default_factory=dict)
    """By key; those that have left are gone."""
    last_key: int = 0

    def part(self) -> TicketPart:
        """Return what the actor is told."""
        keys = {member.graph_id: key for key, member in self.members.items()}
        return TicketPart(ring_id=self.ring_id, keys=keys)

    def add(self, member: Member) -> None:
        """Have a graph take tickets here from now on; the first one's turns it is meanwhile."""
        if member in self.members.values():
            return
        key = self.last_key = self.last_key + 1
        if key > MAX_KEY:
            msg = f"actor {self.label} has had {MAX_KEY} graphs while one of them stayed alive"
            raise GraphError(msg)
        self.members[key] = member
        if not self.ring.holder:
            self.ring.issue(key, 0)
        member.places = (*member.places, (self, key))

    def turn_to(self, key: int) -> None:
        """Give the turns to a graph.

        Raises:
            CapacityExceededError: The actor has not come to the turns of thousands of tickets.
        """
        ring = self.ring
        holder = ring.holder
        if holder == key:
            return
        if ring.is_full:
            msg = (
                f"the graphs that share actor {self.label} took {SLOTS} turns after each other "
                "that wait for it. Get results before executing more"
            )
            raise CapacityExceededError(msg)
        before = self.members.get(holder)
        inputs = None if before is None else before.inputs
        ring.issue(key, 0 if inputs is None else inputs.complete())


class Tickets:
    """The graphs that this process drives in one session, and the actors they share."""

    _of_hosts: ClassVar[weakref.WeakKeyDictionary[Any, Tickets]] = weakref.WeakKeyDictionary()
    _making = threading.Lock()

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Around every showing of inputs of graphs that share actors."""
        self.holder: Member | None = None
        """The graph that has the turns on all its shared actors; None while they change."""
        self._members: dict[ActorId, list[Member]] = defaultdict(list)
        self._shared: dict[ActorId, _SharedActor] = {}

    @classmethod
    def of(cls, host: Host) -> Tickets:
        """Return this process's tickets in a session."""
        with cls._making:
            return cls._of_hosts.setdefault(host, cls())

    @whole
    def join(
        self, member: Member, host: Host, actors: Mapping[ActorId, str]
    ) -> dict[ActorId, tuple[TicketPart, TicketRing]]:
        """Have a graph that is being compiled take its place among the others.

        Args:
            member: The graph.
            host: The session.
            actors: The labels of the graph's actors.

        Returns:
            What each actor that it shares is to be told, and the ring whose memory it needs.
        """
        with self.lock:
            others = {id(one): one for actor in actors for one in self._members[actor]}
            for actor in actors:
                self._members[actor].append(member)
        with ExitStack() as stack:
            # None of them sends without the lock while it begins to share. Graphs that join
            # meanwhile send nothing yet.
            for other in sorted(others.values(), key=lambda one: one.graph_id):
                stack.enter_context(other.lock)
            with self.lock:
                self.holder = None
                return {
                    actor: self._share(actor, host, label)
                    for actor, label in actors.items()
                    if len(self._members[actor]) > 1
                }

    def _share(self, actor: ActorId, host: Host, label: str) -> tuple[TicketPart, TicketRing]:
        """Have all graphs of an actor take tickets there from now on."""
        shared = self._shared.get(actor)
        if shared is None:
            ring_id = host.process << 32 | next(_ring_ids)
            shared = self._shared[actor] = _SharedActor(label, TicketRing(), ring_id)
        for member in self._members[actor]:  # whoever was there alone first
            shared.add(member)
        return shared.part(), shared.ring

    def leave(self, member: Member) -> None:
        """Forget a graph that has ended. Idempotent."""
        member.inputs = None  # they refer to the member: no cycle is left
        with self.lock:
            if self.holder is member:
                self.holder = None
            for actor in [actor for actor, there in self._members.items() if member in there]:
                self._members[actor].remove(member)
                shared = self._shared.get(actor)
                if shared is not None:
                    gone = [key for key, one in shared.members.items() if one is member]
                    for key in gone:
                        del shared.members[key]
                if not self._members[actor]:
                    del self._members[actor]
                    if shared is not None:
                        self._shared.pop(actor).ring.close()

    def turn_to(self, member: Member) -> None:
        """Give the turns on all actors that a graph shares to it; call it under `lock`.

        Raises:
            CapacityExceededError: As `_SharedActor.turn_to`.
        """
        for shared, key in member.places:
            shared.turn_to(key)
