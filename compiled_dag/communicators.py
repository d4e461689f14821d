"""The users' communicators of one graph: a copy in every member's process, for the graph's life.

Also members that have no node in the graph get one, because `initialize` may wait for all ranks.
"""

from __future__ import annotations

import copy
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compiled_dag.accelerator import Recipe
from compiled_dag.channel import pickling
from compiled_dag.channel_context import ChannelContext
from compiled_dag.errors import ActorDiedError, GraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compiled_dag.capture import UserCommunicator
    from compiled_dag.communicator import Communicator
    from compiled_dag.host import Actor, ActorContext, ActorId, Host, Pending
    from compiled_dag.ir import CommunicatorId
    from compiled_dag.program import Program

_TURN_S = 0.05
"""How long to wait for one member before looking at the others, one of which may have failed."""


@dataclass(slots=True)
class CommunicatorEnd:
    """One actor's copy of a communicator."""

    communicator: Any
    """A `Communicator`, or what does as one for edges (`compiled_dag.operation.EdgeEnd`)."""
    rank: int
    failure: str | None = None
    """Why it is not used any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunicatorPart:
    """What a collective is told of the communicator that does it."""

    graph_id: int
    number: CommunicatorId
    ranks: tuple[int, ...]
    """The communicator's rank of each actor of the collective, in the collective's order."""


class CommunicatorEnds:
    """The copies of one graph in one process; closed when the graph, or the actor, ends."""

    def __init__(self, graph_id: int) -> None:
        self._graph_id = graph_id
        self._ends: dict[int, CommunicatorEnd] = {}

    def add(self, number: int, communicator: Communicator | Recipe, rank: int) -> None:
        """Initialize a copy, or make one."""
        if isinstance(communicator, Recipe):
            communicator = communicator.make(rank)
        else:
            communicator.initialize(rank)
        self._ends[number] = CommunicatorEnd(communicator, rank)
        ChannelContext.get_current().communicators[self._name(number)] = communicator

    def __getitem__(self, number: int) -> CommunicatorEnd:
        return self._ends[number]

    def close(self) -> None:
        """Destroy the copies. Idempotent; what a `destroy` raises is logged."""
        ends, self._ends = self._ends, {}
        for number, end in ends.items():
            ChannelContext.get_current().communicators.pop(self._name(number), None)
            try:
                end.communicator.destroy()
            except Exception:
                import logging  # noqa: PLC0415  10 ms that few graphs need

                name = type(end.communicator).__name__
                logging.getLogger(__name__).exception("%s.destroy() raised", name)
            finally:
                # Steps that wait for the garbage collector refer to the end; and it, by the user's
                # object, to actors that are not to live on for that.
                del end.communicator

    def _name(self, number: int) -> str:
        return f"{self._graph_id}/{number}"


def end_in(context: ActorContext, graph_id: int, number: int) -> CommunicatorEnd:
    """Return this process's copy of a graph's communicator."""
    ends: CommunicatorEnds = context.resources[_key(graph_id)]
    return ends[number]


def used_by(program: Program) -> set[CommunicatorId]:
    """Return the communicators that a program needs: a default one may be for nothing."""
    numbers = {spec.transport.communicator for spec in program.channels}
    numbers |= {spec.communicator for spec in program.operations}
    return {number for number in numbers if number is not None}


class DriverCommunicators:
    """The driver's end of the communicators of one graph."""

    def __init__(
        self,
        graph_id: int,
        host: Host,
        users: Sequence[UserCommunicator],
        used: Iterable[CommunicatorId],
    ) -> None:
        self._graph_id = graph_id
        self._host = host
        self._users = {number: users[number] for number in sorted(used)}
        self._asked: dict[ActorId, Actor] = {}
        """Members that were asked to make a copy."""
        self._leaving: dict[ActorId, Pending] = {}

    @property
    def members(self) -> tuple[Actor, ...]:
        """All actors that have copies."""
        actors = {one.actor_id: one for user in self._users.values() for one in user.actors}
        return tuple(actors.values())

    def ranks_of(self, actors: Sequence[Actor]) -> dict[CommunicatorId, dict[int, int]]:
        """Return, by communicator, the ranks of a graph's participants that are members."""
        participant = {actor.actor_id: number for number, actor in enumerate(actors, 1)}
        return {
            number: {
                participant[member.actor_id]: rank
                for rank, member in enumerate(user.actors)
                if member.actor_id in participant
            }
            for number, user in self._users.items()
        }

    def part_of(self, number: CommunicatorId, actors: Sequence[Actor]) -> CommunicatorPart:
        """Return what a collective of `actors` needs to know."""
        members = [actor.actor_id for actor in self._users[number].actors]
        ranks = tuple(members.index(actor.actor_id) for actor in actors)
        return CommunicatorPart(graph_id=self._graph_id, number=number, ranks=ranks)

    def open(self, deadline: float) -> None:
        """Make and initialize all copies.

        Raises:
            ActorDiedError: A member is dead, or dies meanwhile.
            GraphError: An `initialize` raised, or did not return by `deadline`.
            TypeError: A communicator cannot be pickled.
        """
        for number, user in self._users.items():
            self._open(number, user, deadline)

    def _open(self, number: int, user: UserCommunicator, deadline: float) -> None:
        waiting: list[tuple[Actor, Pending]] = []
        lent: list[Any] = []
        """Handles of the members: until all copies are made."""
        for rank, actor in enumerate(user.actors):
            self._host.line(actor.actor_id, deadline)
            join = (self._graph_id, number, user.communicator, rank)
            self._asked[actor.actor_id] = actor
            payload, with_it = pickling.dumps_by_value(join)
            lent += with_it
            waiting.append((actor, self._host.submit(actor.actor_id, join_communicator, payload)))
        while waiting:
            waiting = [one for one in waiting if not self._has_joined(*one, user.name, deadline)]
            if waiting and time.monotonic() >= deadline:
                labels = ", ".join(actor.label for actor, _ in waiting)
                msg = (
                    f"{user.name}.initialize did not return in time on {labels}: it waits for "
                    "others, or the actor is busy in another call"
                )
                raise GraphError(msg)

    def _has_joined(self, actor: Actor, reply: Pending, name: str, deadline: float) -> bool:
        try:
            reply.result(min(deadline, time.monotonic() + _TURN_S))
        except TimeoutError:
            return False
        except ActorDiedError:
            raise
        except Exception as error:
            msg = f"{name}.initialize failed on {actor.label}: {type(error).__name__}: {error}"
            raise GraphError(msg) from error
        return True

    def release(self) -> None:
        """Ask every living member to destroy its copies, each once. Idempotent."""
        for actor_id in self._asked:
            if actor_id in self._leaving or self._host.death(actor_id) is not None:
                continue
            payload = str(self._graph_id).encode()
            try:
                reply = self._host.submit(actor_id, leave_communicators, payload)
            except RuntimeError:
                return  # the session has ended meanwhile, and with it all its actors
            self._leaving[actor_id] = reply

    def close(self, deadline: float) -> None:
        """Release them and wait for the members until `deadline`. Idempotent."""
        self.release()
        for actor_id, reply in list(self._leaving.items()):
            try:
                reply.result(deadline)
            except (TimeoutError, ActorDiedError):
                continue  # it is busy or dead, and has nothing that we still need
            self._asked.pop(actor_id, None)


def _key(graph_id: int) -> str:
    return f"communicators {graph_id}"


# --- what the driver has an actor run -------------------------------------------------------------


def join_communicator(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Make and initialize this member's copy (a `SystemCall`)."""
    join: tuple[int, int, Communicator | Recipe, int] = pickle.loads(payload)
    graph_id, number, communicator, rank = join
    ends = context.resources.setdefault(_key(graph_id), CommunicatorEnds(graph_id))
    try:
        ends.add(number, communicator, rank)
    except Exception as error:
        # Its class may be known here only, and then its text is all that can be told.
        raise RuntimeError(f"{type(error).__name__}: {copy.copy(error)}") from error
    return b""


def leave_communicators(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Destroy this member's copies (a `SystemCall`); fine if there are none."""
    ends = context.resources.pop(_key(int(payload)), None)
    if ends is not None:
        ends.close()
    return b""
