"""What is sent to an actor so that it can run its part of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.ir import CommunicatorId, NodeId, OperationId
    from compiled_dag.operation import CollectiveOp, EdgeGroups
    from compiled_dag.options import Profiling
    from compiled_dag.outcome import Place
    from compiled_dag.program import Step
    from compiled_dag.turns import TicketPart


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPart:
    """One rank's part in one collective operation."""

    op: CollectiveOp
    group_id: int
    rank: int
    places: tuple[Place, ...]
    """By rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgePart:
    """A group that carries the tensors of some channels."""

    groups: EdgeGroups
    group_id: int
    members: tuple[int, ...]
    """Participants, by rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One participant's program with everything it refers to."""

    graph_id: int
    participant: int
    processes: tuple[int, ...]
    """Board line of each participant."""
    participants: tuple[str, ...]
    """What messages call each."""
    channels: tuple[ChannelSpec, ...]
    steps: tuple[Step, ...]
    num_slots: int
    constants: dict[int, Any]
    functions: dict[NodeId, Callable[..., Any]]
    """What calls of functions run; a call without one is of a method."""
    places: dict[NodeId, Place]
    parts: dict[OperationId, RankPart]
    edges: tuple[EdgePart, ...]
    """Groups that this participant is in."""
    with_torch: bool
    """Whether the driver has imported torch, so that tensors may come."""
    slot_bytes: int
    cap_bytes: int | None
    ranks: dict[CommunicatorId, dict[int, int]]
    """What participants are called in users' communicators."""
    tickets: TicketPart | None
    """Where the actor takes its turns in several graphs."""
    wait_slice_s: float
    overlaps: bool
    """Whether tensors of the GPU are received, and sent by process groups, on other streams."""
    profiling: Profiling
    bind_indexes: Mapping[NodeId, int]
    """Of this participant's nodes: place among those bound to its actor."""
