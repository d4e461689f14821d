"""Calls of remote functions, as nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.call_node import CallNode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.bindable import RemoteFunction


class FunctionNode(CallNode):
    """One call of a remote function: a task where the graph is executed as it is."""

    def __init__(
        self, function: RemoteFunction, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._function = function  # first: messages about the arguments name the function
        super().__init__(args, kwargs, function.declared)

    @property
    def _num_returns(self) -> int:
        return max(1, self._function.num_returns)

    @property
    def _label(self) -> str:
        return self._function.name

    @property
    def _body(self) -> str:
        return repr(self._function)
