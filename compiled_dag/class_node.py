"""Actors and calls of their methods, as nodes.

A `ClassNode` is an actor to be made; its methods are bound as those of a handle are. A
`ClassMethodNode` belongs to either. Calls of one class node run in the order they were bound, also
those whose results nobody needs: each knows the call before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, cast

from compiled_dag import walk
from compiled_dag.call_node import CallNode, ElementNode
from compiled_dag.errors import GraphError
from compiled_dag.input_node import InputNode
from compiled_dag.node import DAGNode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.bindable import ClassMethod, Method, RemoteClass, Target

PARENT_CLASS_NODE_KEY: Final = "parent_class_node"
PREV_CLASS_METHOD_CALL_KEY: Final = "prev_class_method_call"
BIND_INDEX_KEY: Final = "bind_index"


class ClassNode(DAGNode):
    """An actor that each execution makes anew; its attributes are the methods of its class."""

    _takes_hint = False

    def __init__(
        self, remote_class: RemoteClass, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._class = remote_class
        self._last_call: ClassMethodNode | None = None
        super().__init__(args, kwargs, remote_class.declared)

    def _attach(self) -> None:
        for node in walk.needed(self):
            if isinstance(node, InputNode):
                msg = (
                    f"the constructor of {self._label}, bound at {self._source}, needs the "
                    f"InputNode made at {node._source}, which is not known when an actor is made. "
                    "Give the input to a method"
                )
                raise GraphError(msg)
        super()._attach()

    @property
    def _label(self) -> str:
        return self._class.name

    @property
    def _body(self) -> str:
        return repr(self._class)

    def __getstate__(self) -> dict[str, Any]:
        # Calls need this node, not it them: those that travel too enter themselves.
        return {**super().__getstate__(), "_last_call": None}

    def __getattr__(self, name: str) -> ClassNodeMethod:
        remote_class: RemoteClass | None = self.__dict__.get("_class")
        if remote_class is None or name.startswith("__"):
            raise super()._no_attribute(name)
        method = remote_class.method(name)
        if method is None:
            raise self._no_attribute(name)
        return ClassNodeMethod(self, method)

    def _no_attribute(self, name: str) -> AttributeError:
        if name in ("remote", "bind"):
            return AttributeError(
                f"{self!r} has no .{name}: bind one of its methods, as in node.method.bind(...)"
            )
        return AttributeError(f"{self._label} has no method {name!r}{self._class.nearest(name)}")


class ClassNodeMethod:
    """One method of the actor that a class node makes."""

    def __init__(self, node: ClassNode, method: ClassMethod) -> None:
        self._node = node
        self._method = method

    def bind(self, /, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """Draw a call of the method.

        With ``num_returns=2``, ``first, second = node`` draws each value; the node itself stands
        for the list of both.

        Raises:
            TypeError: The arguments do not fit the signature.
        """
        self._method.check(args, kwargs)
        others = {
            PARENT_CLASS_NODE_KEY: self._node,
            PREV_CLASS_METHOD_CALL_KEY: self._node._last_call,
        }
        return ClassMethodNode(self._method, args, kwargs, others)

    def options(self, **options: Any) -> ClassNodeMethod:
        """Return the method with other options.

        Raises:
            ValueError: An unknown option, or a value out of range.
            TypeError: A value of the wrong type.
        """
        return ClassNodeMethod(self._node, self._method.with_options(options))

    def __getattr__(self, name: str) -> NoReturn:
        msg = f"{self!r} has no attribute {name!r}"
        if name == "remote":
            msg = f"{self!r} has no .remote: its actor is not made yet; .bind() draws the call"
        raise AttributeError(msg)

    def __repr__(self) -> str:
        return f"<method {self._method.name} of {self._node!r}>"


class MethodElementNode(ElementNode):
    """One of the values of a method with several returns; in Ray that is a `ClassMethodNode`."""

    is_class_method_call: ClassVar = False
    is_class_method_output: ClassVar = True

    @property
    def class_method_call(self) -> ClassMethodNode:
        """The call whose value it is."""
        return cast("ClassMethodNode", self._call)

    @property
    def output_idx(self) -> int:
        """Which of the call's values it is."""
        return self._index

    @property
    def num_returns(self) -> int:
        """How many values the call returns."""
        return self.class_method_call.num_returns

    def get_method_name(self) -> str:
        """Return what Ray calls it: its place among the call's values."""
        return f"return_idx_{self._index}"


class ClassMethodNode(CallNode):
    """One call of one method of one actor.

    For `isinstance`, each of its several values and what a rank gets out of a collective count as
    one too, as scripts written for Ray expect.
    """

    is_class_method_call: ClassVar = True
    is_class_method_output: ClassVar = False
    class_method_call: ClassVar = None
    """The call whose value it is, where it is one of several (`MethodElementNode`)."""
    output_idx: ClassVar = None
    """Which of that call's values it is."""

    def __init__(
        self,
        method: Method,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> None:
        self._method = method  # first: messages about the arguments name the method
        super().__init__(args, kwargs, method.declared, others)

    def _element(self, index: int) -> ElementNode:
        return MethodElementNode(self, index)

    def _attach(self) -> None:
        super()._attach()
        parent = self._parent
        if isinstance(parent, ClassNode):
            last = parent._last_call
            if last is None or last._order < self._order:
                parent._last_call = self

    @property
    def num_returns(self) -> int:
        """How many values it returns."""
        return self._num_returns

    def get_method_name(self) -> str:
        """Return the name of the method."""
        return self._method.name

    @property
    def _parent(self) -> Any:
        """The class node, or the handle, whose method it calls."""
        return self._bound_other_args_to_resolve[PARENT_CLASS_NODE_KEY]

    @property
    def _target(self) -> Target | None:
        """The method of its actor, if that is made already."""
        return None if isinstance(self._parent, ClassNode) else cast("Target", self._method)

    @property
    def _num_returns(self) -> int:
        return max(1, self._method.num_returns)

    @property
    def _label(self) -> str:
        return f"{self._method.class_name}.{self._method.name}"

    @property
    def _body(self) -> str:
        return f"{self._label}()"


ClassMethodNode.register(MethodElementNode)


def bind_method(
    target: Target, args: Sequence[Any], kwargs: Mapping[str, Any], index: int = 0
) -> ClassMethodNode | tuple[ElementNode, ...]:
    """Draw one call of `target`; several nodes where the method has several returns.

    Args:
        target: The method of an actor.
        args: Positional arguments.
        kwargs: Keyword arguments.
        index: How many calls of the actor were bound before.
    """
    others = {
        PARENT_CLASS_NODE_KEY: target.handle,
        PREV_CLASS_METHOD_CALL_KEY: None,
        BIND_INDEX_KEY: index,
    }
    node = ClassMethodNode(target, args, kwargs, others)
    return node if node._num_returns == 1 else node._elements()
