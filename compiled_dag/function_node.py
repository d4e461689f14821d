"""Calls of remote functions, as nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.node import DAGNode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.bindable import RemoteFunction


class FunctionNode(DAGNode):
    """One call of a remote function: a task where the graph is executed as it is.

    With ``num_returns=2`` the node stands for the list of both.
    """

    def __init__(
        self, function: RemoteFunction, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._function = function  # first: messages about the arguments name the function
        super().__init__(args, kwargs, function.declared)

    @property
    def _label(self) -> str:
        return self._function.name

    @property
    def _body(self) -> str:
        return repr(self._function)
