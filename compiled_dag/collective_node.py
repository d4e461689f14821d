"""Collective operations over the nodes of several actors, as one node per rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from compiled_dag.call_node import ElementNode
from compiled_dag.class_node import ClassMethodNode
from compiled_dag.errors import GraphError
from compiled_dag.node import DAGNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.communicator import Communicator
    from compiled_dag.operation import CollectiveOp

COLLECTIVE_OPERATION_KEY: Final = "collective_operation"


class CollectiveBinding:
    """One collective operation over the nodes of several actors; shared by its output nodes."""

    def __init__(
        self, op: CollectiveOp, inputs: Sequence[DAGNode], communicator: Communicator | None
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.communicator = communicator
        self.outputs: tuple[CollectiveOutputNode, ...] = ()


class CollectiveOutputNode(DAGNode):
    """What one rank gets out of a collective operation."""

    def __init__(self, binding: CollectiveBinding, rank: int) -> None:
        self._binding = binding
        self._rank = rank
        super().__init__((binding.inputs[rank],), others={COLLECTIVE_OPERATION_KEY: binding})

    def _partners(self) -> tuple[DAGNode, ...]:
        return self._binding.outputs

    @property
    def _label(self) -> str:
        return f"{self._binding.op}, rank {self._rank}"


def bind_collective(
    op: CollectiveOp, inputs: Sequence[DAGNode], communicator: Communicator | None = None
) -> list[CollectiveOutputNode]:
    """Draw one collective operation; returns one node per rank.

    Args:
        op: The operation.
        inputs: One node per actor, by rank.
        communicator: The user's own, which does it; None for a group of ours.

    Raises:
        GraphError: An input is no node of an actor, or two are on one actor.
    """
    actors: dict[Any, int] = {}
    for position, node in enumerate(inputs):
        call = actor_call(node)
        if call is None:
            msg = f"{op}: input {position} ({node!r}) is not a method of an actor"
            raise GraphError(msg)
        if call._parent in actors:
            target = call._target
            msg = (
                f"{op}: inputs {actors[call._parent]} and {position} are both on actor "
                f"{repr(call._parent) if target is None else target.actor.label}. "
                "A collective takes one node of each actor"
            )
            raise GraphError(msg)
        actors[call._parent] = position
    if not inputs:
        msg = f"{op}: the list of inputs is empty"
        raise GraphError(msg)
    binding = CollectiveBinding(op, inputs, communicator)
    binding.outputs = tuple(CollectiveOutputNode(binding, rank) for rank in range(len(inputs)))
    return list(binding.outputs)


def actor_call(node: object) -> ClassMethodNode | None:
    """Return the call on whose actor `node` runs, or None if it runs on none."""
    while True:
        match node:
            case ClassMethodNode():
                return node
            case ElementNode():
                node = node._call
            case CollectiveOutputNode():
                node = node._binding.inputs[node._rank]
            case _:
                return None
