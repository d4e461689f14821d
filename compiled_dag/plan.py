"""What the passes hand to each other between graph and program."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.channel.transport import Transport
    from compiled_dag.host import ActorId
    from compiled_dag.ir import CommunicatorId, Graph, Node, NodeId, OperationId

DRIVER_PARTICIPANT: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The channels of a graph."""

    specs: tuple[ChannelSpec, ...]
    of_value: dict[NodeId, int]
    """Channel that carries a node's value, where one does."""
    trigger: int | None
    """Channel that starts the actors whose first node waits for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transports:
    """What carries the values and the collectives of a graph."""

    of_value: dict[NodeId, Transport]
    """For each value that travels."""
    of_operation: dict[OperationId, CommunicatorId]
    """For each collective that a user's communicator does."""


def why_not_captured(graph: Graph, node: Node) -> str:
    """Return why a node's work on the GPU cannot be recorded, or an empty text."""
    number = graph.actors.index(node.actor)
    gpus, label = graph.gpus[number], graph.labels[number]
    if not gpus.logical:
        return f"{label} has no GPU"
    return f"the GPU of {label} is fake" if gpus.physical == () else ""


def remote_readers(graph: Graph) -> dict[NodeId, set[ActorId]]:
    """Return who needs each value that travels, apart from the actor that makes it."""
    readers: dict[NodeId, set[ActorId]] = defaultdict(set)
    for node in graph.nodes:
        for use in node.uses():
            if graph.nodes[use].actor != node.actor:
                readers[use].add(node.actor)
    return dict(readers)
