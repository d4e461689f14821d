"""The operations as users call them: ``allreduce.bind(nodes, op=ReduceOp.AVG)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collective.ops import AllReduce, ReduceOp, check_inputs, parse_reduce_op, parse_transport
from compiled_dag.collective_node import CollectiveOutputNode, bind_collective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.communicator import Communicator
    from compiled_dag.node import DAGNode


class AllReduceOperation:
    """Reduce the tensors of several actors; every actor gets the result."""

    def bind(
        self,
        input_nodes: Sequence[DAGNode],
        op: ReduceOp = ReduceOp.SUM,
        transport: str | Communicator | None = None,
    ) -> list[CollectiveOutputNode]:
        """Draw an allreduce over one node of each actor.

        The tensors must agree in shape and dtype, which is checked on every execution before the
        backend is touched. The inputs are left as they are.

        Args:
            input_nodes: One node per actor; a node's position is its rank.
            op: How to reduce.
            transport: What does it: ``"gloo"``, ``"nccl"``, or a `Communicator` of the same
                actors; None (or ``"auto"``, ``"accelerator"``) for NCCL where every actor has a
                GPU of its own, gloo otherwise.

        Returns:
            One node per rank: a tensor of the input's shape, dtype and device.

        Raises:
            GraphError: Empty, not a list, not nodes of actors, or two nodes on one actor.
            ValueError: `op` is no reduce op, or `transport` is not known.
        """
        check_inputs("allreduce", input_nodes)
        backend, communicator = parse_transport(transport)
        operation = AllReduce(op=parse_reduce_op(op), transport=backend)
        return bind_collective(operation, input_nodes, communicator)

    def __repr__(self) -> str:
        return "collective.allreduce"


allreduce = AllReduceOperation()
