"""The operations as users call them: ``allreduce.bind(nodes, op=ReduceOp.AVG)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collective import kinds
from collective.cpu_communicator import CPUCommunicator
from collective.ops import (
    Operation,
    ReduceOp,
    check_inputs,
    check_root,
    parse_reduce_op,
    parse_transport,
)
from compiled_dag.collective_node import CollectiveOutputNode, bind_collective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.kinds import Kind
    from compiled_dag.communicator import Communicator
    from compiled_dag.node import DAGNode


class _Operation:
    """What the operations have in common.

    The tensors must agree in shape and dtype, which is checked on every execution before the
    backend is touched. The inputs are left as they are. `input_nodes` has one node per actor; a
    node's position is its rank. `transport` is what does it: ``"gloo"``, ``"nccl"``, or a
    `Communicator` of the same actors; None (or ``"auto"``, ``"accelerator"``) for NCCL where every
    actor has a GPU of its own, and gloo otherwise.

    Every `bind` raises `GraphError` for inputs that are empty, no list, no nodes of actors, or two
    nodes of one actor, and `ValueError` for another argument that is none of the valid ones.
    """

    _kind: Kind

    def _draw(
        self,
        input_nodes: Sequence[DAGNode],
        transport: str | Communicator | None = None,
        *,
        op: ReduceOp | None = None,
        root: int = 0,
    ) -> list[CollectiveOutputNode]:
        kind = self._kind
        check_inputs(kind.name, input_nodes)
        if isinstance(transport, CPUCommunicator):
            transport.check_members(kind.name, input_nodes)
            transport = "gloo"
        backend, communicator = parse_transport(transport)
        reduce_op = parse_reduce_op(op) if kind.reduces else None
        if kind.root and input_nodes:
            root = check_root(kind.root, root, len(input_nodes))
        operation = Operation(kind=kind, op=reduce_op, root=root, transport=backend)
        return bind_collective(operation, input_nodes, communicator)

    def __repr__(self) -> str:
        return f"collective.{self._kind.name}"


class AllReduceOperation(_Operation):
    """Reduce the tensors of several actors; every actor gets the result."""

    _kind = kinds.ALLREDUCE

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        op: ReduceOp = ReduceOp.SUM,
        transport: str | Communicator | None = None,
    ) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank: a tensor of the input's shape, dtype and device."""
        return self._draw(input_nodes, transport, op=op)


class AllGatherOperation(_Operation):
    """Join the tensors of several actors along the first dimension; every actor gets all."""

    _kind = kinds.ALLGATHER

    def bind(
        self, input_nodes: Sequence[DAGNode], transport: str | Communicator | None = None
    ) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank, of shape ``(d0 * W, ...)`` for W ranks."""
        return self._draw(input_nodes, transport)


class ReduceScatterOperation(_Operation):
    """Reduce the tensors of several actors; actor r gets part r of the result."""

    _kind = kinds.REDUCESCATTER

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        op: ReduceOp = ReduceOp.SUM,
        transport: str | Communicator | None = None,
    ) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank, of shape ``(d0 / W, ...)`` for W ranks."""
        return self._draw(input_nodes, transport, op=op)


class BroadcastOperation(_Operation):
    """Give the tensor of one actor to all. What the others bring only says when they are there."""

    _kind = kinds.BROADCAST

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        src_rank: int = 0,
        transport: str | Communicator | None = None,
    ) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank: the tensor of rank `src_rank`."""
        return self._draw(input_nodes, transport, root=src_rank)


class ReduceOperation(_Operation):
    """Reduce the tensors of several actors; one of them gets the result."""

    _kind = kinds.REDUCE

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        dst_rank: int = 0,
        op: ReduceOp = ReduceOp.SUM,
        transport: str | Communicator | None = None,
    ) -> CollectiveOutputNode:
        """Draw it; returns one node, on the actor of rank `dst_rank`."""
        return self._draw(input_nodes, transport, op=op, root=dst_rank)[dst_rank]


class GatherOperation(_Operation):
    """Join the tensors of several actors along the first dimension; one of them gets all."""

    _kind = kinds.GATHER

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        dst_rank: int = 0,
        transport: str | Communicator | None = None,
    ) -> CollectiveOutputNode:
        """Draw it; returns one node, of shape ``(d0 * W, ...)``, on the actor of `dst_rank`."""
        return self._draw(input_nodes, transport, root=dst_rank)[dst_rank]


class ScatterOperation(_Operation):
    """Divide the tensor of one actor along the first dimension; actor r gets part r.

    What the others bring only says when they are there.
    """

    _kind = kinds.SCATTER

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        src_rank: int = 0,
        transport: str | Communicator | None = None,
    ) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank, of shape ``(d0 / W, ...)`` for W ranks."""
        return self._draw(input_nodes, transport, root=src_rank)


class AllToAllOperation(_Operation):
    """Divide every actor's tensor along the first dimension; actor r gets part r of each."""

    _kind = kinds.ALL_TO_ALL

    def bind(
        self, input_nodes: Sequence[DAGNode], transport: str | Communicator | None = None
    ) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank: part r of every rank, joined by rank."""
        return self._draw(input_nodes, transport)


class BarrierOperation(_Operation):
    """Wait until all actors are there. Values pass unchanged and may be of any type."""

    _kind = kinds.BARRIER

    def bind(self, input_nodes: Sequence[DAGNode]) -> list[CollectiveOutputNode]:
        """Draw it; returns one node per rank: its own value, once all ranks have theirs."""
        return self._draw(input_nodes)


allreduce = AllReduceOperation()
allgather = AllGatherOperation()
reducescatter = ReduceScatterOperation()
broadcast = BroadcastOperation()
reduce = ReduceOperation()
gather = GatherOperation()
scatter = ScatterOperation()
all_to_all = AllToAllOperation()
barrier = BarrierOperation()
