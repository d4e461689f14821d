"""From the arguments of nodes to templates over values and constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.call_node import CallNode
from compiled_dag.class_node import ClassNode
from compiled_dag.containers import search
from compiled_dag.errors import GraphError
from compiled_dag.lint_nodes import check_open
from compiled_dag.node import DAGNode
from compiled_dag.output_node import MultiOutputNode
from compiled_dag.tree import Arguments, Const, DictOf, ListOf, Tree, TupleOf, Val

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compiled_dag.ir import NodeId


class Templates:
    """Makes them, and numbers the constants."""

    def __init__(
        self, ids: Mapping[int, NodeId], element: Callable[[CallNode, int], NodeId]
    ) -> None:
        """Make templates of a graph.

        Args:
            ids: Numbers of its nodes, by `id`.
            element: Returns the number of one of the values of a call that has several.
        """
        self._ids = ids
        self._element = element
        self.constants: list[Any] = []
        """A class node stands for the handle of its actor."""

    def arguments(self, node: DAGNode) -> Arguments:
        """Return the arguments of a call.

        Raises:
            GraphError: A node is inside something that is no list, tuple or dict.
        """
        return Arguments(
            tuple(self._argument(node, *item) for item in enumerate(node._bound_args)),
            tuple(
                (name, self._argument(node, name, value))
                for name, value in node._bound_kwargs.items()
            ),
        )

    def output(self, value: Any) -> Tree:
        """Return an output of the graph.

        Raises:
            GraphError: It is, or holds, a class node; or as `arguments`.
        """
        for node in check_open("an output of the graph", search(value, DAGNode)):
            if isinstance(node, ClassNode):
                msg = (
                    f"{node!r} is an output of the graph: bind one of its methods, and return that"
                )
                raise GraphError(msg)
        return self._tree(value)

    def elements(self, call: CallNode) -> tuple[Tree, ...]:
        """Return the several values of a call."""
        return tuple(Val(self._element(call, index)) for index in range(call._num_returns))

    def _argument(self, node: DAGNode, name: int | str, value: Any) -> Tree:
        what = f"argument {name!r} of {node._label}, bound at {node._source}"
        check_open(what, search(value, DAGNode))
        return self._tree(value)

    def _tree(self, value: Any) -> Tree:
        if isinstance(value, DAGNode):
            if isinstance(value, MultiOutputNode):
                msg = f"{value!r} is an output and cannot be an argument"
                raise GraphError(msg)
            if isinstance(value, ClassNode):
                return self._constant(value)
            if isinstance(value, CallNode) and value._num_returns > 1:
                return ListOf(self.elements(value))
            return Val(self._ids[id(value)])
        if search(value, DAGNode).nodes:
            if type(value) is list:
                return ListOf(tuple(self._tree(item) for item in value))
            if type(value) is tuple:
                return TupleOf(tuple(self._tree(item) for item in value))
            return DictOf(
                tuple((self._constant(key), self._tree(item)) for key, item in value.items())
            )
        return self._constant(value)

    def _constant(self, value: Any) -> Const:
        self.constants.append(value)
        return Const(len(self.constants) - 1)
