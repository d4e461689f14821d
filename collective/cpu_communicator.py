"""`CPUCommunicator`: the members of collectives that are to run on CPUs, under Ray's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.collective_node import home_of
from compiled_dag.communicator import HOST_TRANSPORT, Communicator
from compiled_dag.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.node import DAGNode


class CPUCommunicator(Communicator):
    """Names the actors of a collective; gloo does the work, as it would with ``"gloo"``.

    As a hint of an edge it means host memory. It exists for scripts written for Ray, where actors
    without GPUs need one: here a collective of such actors runs on gloo by itself.
    """

    def __init__(self, world_size: int, actor_handles: Sequence[Any]) -> None:
        """Take the members, by rank.

        Raises:
            ValueError: There are not `world_size` of them, or one stands twice.
        """
        handles = list(actor_handles)
        if len(handles) != world_size:
            raise ValueError(
                f"CPUCommunicator: world_size={world_size}, and {len(handles)} actors are given"
            )
        if len(set(handles)) != world_size:
            raise ValueError(f"CPUCommunicator: an actor stands twice among {handles}")
        self._handles = handles
        self._rank: int | None = None

    def initialize(self, rank: int) -> None:
        """Take note of the rank: there is nothing to be made."""
        self._rank = rank

    def get_actor_handles(self) -> list[Any]:
        """Return the members by rank."""
        return list(self._handles)

    def get_rank(self, actor: Any) -> int:
        """Return the rank of a member.

        Raises:
            ValueError: `actor` is none.
        """
        if actor not in self._handles:
            raise ValueError(f"{actor!r} is no member of the CPUCommunicator of {self._handles}")
        return self._handles.index(actor)

    def get_self_rank(self) -> int | None:
        """Return the rank given to `initialize`."""
        return self._rank

    def get_transport_name(self) -> str:
        """Return ``"cpu"``: values between two members go through host memory."""
        return HOST_TRANSPORT

    def destroy(self) -> None:
        """Give nothing back."""

    def check_members(self, operation: str, inputs: Sequence[DAGNode]) -> None:
        """Refuse a collective of other actors than the members.

        Raises:
            GraphError: One is missing, or one too many; names it.
        """
        taking_part: dict[Any, str] = {}
        for node in inputs:
            home = home_of(node)
            if home is None:
                return  # not a method of an actor, which `bind` refuses by itself
            if home.actor is None:
                raise GraphError(
                    f"{operation}: {node!r} is on an actor that the graph makes itself, which no "
                    "communicator can have as a member. Use transport='gloo'"
                )
            taking_part[home.actor] = home.actor.label
        if not taking_part:
            return
        host = next(iter(taking_part)).host
        members = {(bound := host.bound_actor(h)): bound.label for h in self._handles}
        missing = [label for actor, label in members.items() if actor not in taking_part]
        extra = [label for actor, label in taking_part.items() if actor not in members]
        if missing or extra:
            raise GraphError(
                f"{operation} runs on {', '.join(taking_part.values())}, its transport "
                f"CPUCommunicator has {', '.join(members.values())}: give it the same actors "
                f"(missing here: {', '.join(missing) or 'none'}; not among the members: "
                f"{', '.join(extra) or 'none'})"
            )
