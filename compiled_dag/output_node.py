"""Several outputs of a graph, as one node."""

from __future__ import annotations

from typing import Any

from compiled_dag.node import DAGNode


class MultiOutputNode(DAGNode):
    """Several outputs; `execute` returns a list of refs in this order."""

    _takes_hint = False

    def __init__(self, args: Any) -> None:
        if not isinstance(args, (list, tuple)):
            msg = f"MultiOutputNode takes a list or tuple of nodes, not {type(args).__name__}"
            raise ValueError(msg)  # noqa: TRY004  Ray raises ValueError here
        super().__init__(args)
