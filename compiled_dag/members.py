"""A user's communicator as data: who is in it, and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.communicator import Communicator, operations_of
from compiled_dag.errors import GraphError
from compiled_dag.ir import CommunicatorId, Members

if TYPE_CHECKING:
    from compiled_dag.host import Actor, Host


def actors_of(communicator: Communicator, host: Host) -> tuple[Actor, ...]:
    """Return the members by rank.

    Raises:
        GraphError: A member is no actor of the graph's session, or the ranks are not 0, 1, ...
    """
    label = type(communicator).__name__
    by_rank: dict[int, Actor] = {}
    handles = list(communicator.get_actor_handles())
    for position, handle in enumerate(handles):
        try:
            actor = host.bound_actor(handle)
        except TypeError as error:
            msg = f"{label}.get_actor_handles(): element {position} is no actor: {error}"
            raise GraphError(msg) from error
        if actor.host is not host:
            msg = f"{label}: its member {actor.label} belongs to another session than the graph"
            raise GraphError(msg)
        by_rank[communicator.get_rank(handle)] = actor
    size = communicator.get_world_size()
    if sorted(by_rank) != list(range(size)) or len(handles) != size:
        msg = (
            f"{label} has {len(handles)} actors, get_world_size() {size} and ranks "
            f"{sorted(by_rank)}: give every actor a rank of its own, from 0 to {size - 1}"
        )
        raise GraphError(msg)
    return tuple(by_rank[rank] for rank in range(size))


def describe(
    number: CommunicatorId, communicator: Communicator, actors: tuple[Actor, ...]
) -> Members:
    """Return what the checks of a graph need to know."""
    return Members(
        id=number,
        label=type(communicator).__name__,
        transport=communicator.get_transport_name(),
        actors=tuple(actor.actor_id for actor in actors),
        labels=tuple(actor.label for actor in actors),
        operations=operations_of(communicator),
    )
