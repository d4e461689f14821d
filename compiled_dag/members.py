"""A user's communicator as data: who is in it, and what it can do; those that ranks make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.accelerator import Recipe, class_of, recipe_for
from compiled_dag.communicator import Communicator, operations_of
from compiled_dag.errors import GraphError
from compiled_dag.ir import CommunicatorId, Members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.collective_node import Home
    from compiled_dag.host import Actor, Host


class Recipes:
    """One graph's communicators of a registered accelerator: one for each set of actors."""

    def __init__(self, *, overlaps: bool) -> None:
        self._overlaps = overlaps
        self._by_actors: dict[tuple[int, ...], Recipe | None] = {}

    def of(self, homes: Sequence[Home]) -> Recipe | None:
        """Return that of some nodes' actors; None if no accelerator is registered.

        Raises:
            GraphError: An actor is yet to be made.
        """
        handles = {id(home.actor or home.parent): home.parent for home in homes}
        key = tuple(handles)
        if key not in self._by_actors:
            found = recipe_for(tuple(handles.values()), overlaps=self._overlaps)
            if found is not None:
                _check_made(homes)
            self._by_actors[key] = found
        return self._by_actors[key]


def _check_made(homes: Sequence[Home]) -> None:
    for home in homes:
        if home.actor is None:
            msg = (
                f"{home.label} is bound to a class: communicators of a registered accelerator are "
                "made of actors that are there. Make it with .remote() first"
            )
            raise GraphError(msg)


def actors_of(communicator: Communicator | Recipe, host: Host) -> tuple[Actor, ...]:
    """Return the members by rank.

    Raises:
        GraphError: A member is no actor of the graph's session, or the ranks are not 0, 1, ...
    """
    label = class_of(communicator).__name__
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
    number: CommunicatorId, communicator: Communicator | Recipe, actors: tuple[Actor, ...]
) -> Members:
    """Return what the checks of a graph need to know."""
    return Members(
        id=number,
        label=class_of(communicator).__name__,
        transport=communicator.get_transport_name(),
        actors=tuple(actor.actor_id for actor in actors),
        labels=tuple(actor.label for actor in actors),
        operations=operations_of(class_of(communicator)),
    )
