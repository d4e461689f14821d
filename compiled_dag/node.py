"""What users hold: nodes made by `.bind()`, `InputNode`, `MultiOutputNode`.

Nodes only remember what was bound. `capture` turns them into data when a graph is compiled, and
compiling never changes them.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from compiled_dag.containers import NestingError, find
from compiled_dag.errors import GraphError, GraphUsageError
from compiled_dag.options import CompileOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType, TracebackType

    from compiled_dag.host import Target
    from compiled_dag.operation import CollectiveOp

_PACKAGES = tuple(
    str(Path(__file__).parent.parent / name) + "/"
    for name in ("compiled_dag", "collective", "runtime")
)
_binds = itertools.count()


class DAGNode:
    """A node of a graph. Made by `.bind()`, never directly."""

    _is_node = True

    def __init__(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._order = next(_binds)
        self._source = _caller()
        self._downstream: list[DAGNode] = []
        for node in self._upstream():
            node._downstream.append(self)

    def _upstream(self) -> list[DAGNode]:
        """Return the nodes among the arguments, each once.

        Raises:
            GraphError: An argument is cyclic, or too deep.
        """
        found: dict[int, DAGNode] = {}
        for name, value in (*enumerate(self._args), *self._kwargs.items()):
            try:
                found.update((id(node), node) for node in find(value, DAGNode))
            except NestingError as error:
                msg = (
                    f"argument {name!r} of {self._label}, bound at {self._source}, {error}. Pass "
                    "it as the attribute of an object of your own"
                )
                raise GraphError(msg) from None
        return list(found.values())

    @property
    def _label(self) -> str:
        return type(self).__name__

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph up to this node through ordinary calls, without compiling.

        Returns:
            A ref; a list of refs for a `MultiOutputNode`.

        Raises:
            GraphError: The graph contains collectives, which exist only compiled.
        """
        from compiled_dag.interpret import interpret  # noqa: PLC0415  interpret reads nodes: it is above us

        return interpret(self, args, kwargs)

    def experimental_compile(
        self,
        _submit_timeout: float | None = None,
        _buffer_size_bytes: int | None = None,
        enable_asyncio: bool = False,  # noqa: ARG002  Ray's signature
        _max_inflight_executions: int | None = None,
        _max_buffered_results: int | None = None,
        *,
        _get_timeout: float | None = None,
        _capacity_policy: str | None = None,
        _max_memory_bytes: int | None = None,
    ) -> Any:
        """Compile the graph that ends in this node into one program per actor and start it.

        Args:
            _submit_timeout: Seconds `execute` waits for room (policy ``"block"``).
            _buffer_size_bytes: First capacity of a payload slot; channels grow by themselves.
            enable_asyncio: Accepted for compatibility.
            _max_inflight_executions: Executions that may be unfetched at one time.
            _max_buffered_results: Fetched results kept for refs that were not got yet.
            _get_timeout: Seconds `get` waits by default.
            _capacity_policy: ``"raise"`` or ``"block"`` when too many executions are unfetched.
            _max_memory_bytes: Cap on the payload memory of the graph.

        Returns:
            A `CompiledDAG`.

        Raises:
            GraphError: The graph or an option is wrong; names nodes and lines.
            ActorDiedError: An actor is dead, or died meanwhile.
        """
        from compiled_dag.driver import compile_dag  # noqa: PLC0415  capture reads nodes: above us

        options = CompileOptions.resolve(
            _submit_timeout=_submit_timeout,
            _buffer_size_bytes=_buffer_size_bytes,
            _max_inflight_executions=_max_inflight_executions,
            _max_buffered_results=_max_buffered_results,
            _get_timeout=_get_timeout,
            _capacity_policy=_capacity_policy,
            _max_memory_bytes=_max_memory_bytes,
        )
        return compile_dag(self, options)

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be pickled: a node is drawn into a graph, not sent. Inside an "
            "argument, nodes may stand in lists, tuples and dicts only"
        )
        raise TypeError(msg)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._label} bound at {self._source}>"


class ClassMethodNode(DAGNode):
    """One call of one method of one actor."""

    def __init__(self, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._target = target  # first: messages about the arguments name the method
        super().__init__(args, kwargs)

    @property
    def _label(self) -> str:
        return f"{self._target.class_name}.{self._target.name}"

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("remote", "bind"):
            msg = f"{self!r} has no .{name}: pass the node to another method's .bind()"
            raise AttributeError(msg)
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg)


class ElementNode(DAGNode):
    """One of the values of a method with several returns."""

    def __init__(self, call: ClassMethodNode, index: int) -> None:
        super().__init__((call,))
        self._call = call
        self._index = index

    @property
    def _label(self) -> str:
        return f"{self._call._label}[{self._index}]"


class CollectiveBinding:
    """One collective operation over the nodes of several actors; shared by its output nodes."""

    def __init__(self, op: CollectiveOp, inputs: Sequence[DAGNode]) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.outputs: tuple[CollectiveOutputNode, ...] = ()


class CollectiveOutputNode(DAGNode):
    """What one rank gets out of a collective operation."""

    def __init__(self, binding: CollectiveBinding, rank: int) -> None:
        super().__init__((binding.inputs[rank],))
        self._binding = binding
        self._rank = rank

    @property
    def _label(self) -> str:
        return f"{self._binding.op}, rank {self._rank}"


class InputNode(DAGNode):
    """What `execute` will be given. Use it as ``with InputNode() as inp:``.

    ``inp`` is the one positional argument; ``inp[0]`` the first of several, ``inp.name`` and
    ``inp["name"]`` keyword arguments. Names of real node attributes are reachable by ``["..."]``.
    """

    def __init__(self, *args: Any, input_type: Any = None, **kwargs: Any) -> None:
        if args or kwargs:
            given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
            msg = f"InputNode takes no arguments, got {given}: values are given to execute()"
            raise ValueError(msg)
        super().__init__()
        self._input_type = input_type
        self._entered = False
        self._fields: dict[int | str, InputAttributeNode] = {}

    @property
    def _label(self) -> str:
        return "input"

    def __enter__(self) -> InputNode:
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing ends: nodes may be bound after the block too."""

    def __getitem__(self, key: Any) -> InputAttributeNode:
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            msg = f"inp[{key!r}]: the key of an input is an int (positional) or a str (keyword)"
            raise GraphUsageError(msg)
        if isinstance(key, int) and key < 0:
            msg = f"inp[{key}]: positions of inputs count from 0"
            raise GraphUsageError(msg)
        return self._field(key, by_attribute=False)

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("_") or name in ("remote", "bind"):
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        return self._field(name, by_attribute=True)

    def __iter__(self) -> NoReturn:
        msg = "an InputNode cannot be iterated: how many inputs there are is known at execute()"
        raise TypeError(msg)

    def _field(self, key: int | str, *, by_attribute: bool) -> InputAttributeNode:
        if key not in self._fields:
            self._fields[key] = InputAttributeNode(self, key, by_attribute=by_attribute)
        return self._fields[key]


class InputAttributeNode(DAGNode):
    """One of several inputs."""

    def __init__(self, source: InputNode, key: int | str, *, by_attribute: bool) -> None:
        super().__init__((source,))
        self._input = source
        self._key = key
        self._by_attribute = by_attribute

    @property
    def _label(self) -> str:
        return f"input[{self._key!r}]"


class MultiOutputNode(DAGNode):
    """Several outputs; `execute` returns a list of refs in this order."""

    def __init__(self, args: Any) -> None:
        if not isinstance(args, (list, tuple)):
            msg = f"MultiOutputNode takes a list or tuple of nodes, not {type(args).__name__}"
            raise ValueError(msg)  # noqa: TRY004  Ray raises ValueError here
        super().__init__(args)


def bind_method(
    target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ClassMethodNode | tuple[ElementNode, ...]:
    """Draw one call of `target`; several nodes where the method has several returns."""
    node = ClassMethodNode(target, args, kwargs)
    if target.num_returns == 1:
        return node
    return tuple(ElementNode(node, index) for index in range(target.num_returns))


def bind_collective(op: CollectiveOp, inputs: Sequence[DAGNode]) -> list[CollectiveOutputNode]:
    """Draw one collective operation; returns one node per rank.

    Raises:
        GraphError: An input is no node of an actor, or two are on one actor.
    """
    actors: dict[int, int] = {}
    for position, node in enumerate(inputs):
        target = actor_target(node)
        if target is None:
            msg = f"{op}: input {position} ({node!r}) is not a method of an actor"
            raise GraphError(msg)
        actor = target.actor
        if actor.actor_id in actors:
            msg = (
                f"{op}: inputs {actors[actor.actor_id]} and {position} are both on actor "
                f"{actor.label}. A collective takes one node of each actor"
            )
            raise GraphError(msg)
        actors[actor.actor_id] = position
    if not inputs:
        msg = f"{op}: the list of inputs is empty"
        raise GraphError(msg)
    binding = CollectiveBinding(op, inputs)
    binding.outputs = tuple(CollectiveOutputNode(binding, rank) for rank in range(len(inputs)))
    return list(binding.outputs)


def actor_target(node: object) -> Target | None:
    """Return the target whose actor `node` runs on, or None if it runs on none."""
    while True:
        match node:
            case ClassMethodNode():
                return node._target
            case ElementNode():
                node = node._call
            case CollectiveOutputNode():
                node = node._binding.inputs[node._rank]
            case _:
                return None


def _caller() -> str:
    """Return ``file:line`` of the first frame outside this project: where the user bound."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGES):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
