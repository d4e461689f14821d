"""From the user's nodes to data: number them, flatten arguments, keep live objects beside."""

from __future__ import annotations

import inspect
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compiled_dag.class_node import ClassMethodNode, ElementNode
from compiled_dag.collective_node import CollectiveBinding, CollectiveOutputNode, actor_call
from compiled_dag.containers import search
from compiled_dag.errors import GraphError, GraphUsageError
from compiled_dag.input_node import InputAttributeNode, InputNode
from compiled_dag.ir import (
    DRIVER,
    Call,
    Collective,
    CommunicatorId,
    Element,
    Gpus,
    Graph,
    Hint,
    Input,
    Node,
    NodeId,
    Op,
    Operation,
    OperationId,
    Output,
)
from compiled_dag.members import actors_of, describe
from compiled_dag.node import DAGNode
from compiled_dag.output_node import MultiOutputNode
from compiled_dag.tree import Arguments, Const, DictOf, ListOf, Tree, TupleOf, Val
from compiled_dag.walk import component

if TYPE_CHECKING:
    from compiled_dag.communicator import Communicator
    from compiled_dag.hints import TorchTensorType
    from compiled_dag.host import Actor, ActorId, Host, Target
    from compiled_dag.operation import CollectiveOp


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph and the live objects its numbers stand for."""

    graph: Graph
    host: Host
    actors: tuple[Actor, ...]
    """Handles, in the graph's order; holding them keeps the actors alive."""
    constants: tuple[Any, ...]
    operations: tuple[CollectiveOp, ...]
    targets: dict[NodeId, Target]
    communicators: tuple[UserCommunicator, ...]


@dataclass(frozen=True, slots=True)
class UserCommunicator:
    """A user's communicator and its members, by rank."""

    communicator: Communicator
    actors: tuple[Actor, ...]


def capture(
    output: DAGNode, default_communicator: Communicator | Literal["create"] | None = "create"
) -> Captured:
    """Turn the connected graph around `output` into data.

    Args:
        output: The node.
        default_communicator: What carries what names no communicator; see `Graph`.

    Raises:
        GraphError: It has no actor, or actors of two sessions, or a generator or coroutine method.
        GraphUsageError: It has two inputs or two outputs, or an input used without ``with``.
    """
    nodes = sorted(component(output), key=lambda node: node._order)
    source = _one_input(nodes)
    _one_output(nodes, output)
    numbered = _number(nodes, source)
    return _Capture(numbered).graph(output, default_communicator)


def _one_input(members: list[DAGNode]) -> InputNode | None:
    inputs = [node for node in members if isinstance(node, InputNode)]
    if len(inputs) > 1:
        msg = f"the graph has {len(inputs)} InputNodes, made at {_sources(inputs)}. Use one"
        raise GraphUsageError(msg)
    for node in inputs:
        if not node._entered:
            msg = (
                f"the InputNode made at {node._source} was not entered: `with InputNode() as inp:`"
            )
            raise GraphUsageError(msg)
    return inputs[0] if inputs else None


def _one_output(members: list[DAGNode], output: DAGNode) -> None:
    others = [node for node in members if isinstance(node, MultiOutputNode) and node is not output]
    if others:
        msg = (
            f"the graph has another output, the MultiOutputNode made at {_sources(others)}. "
            "Compile that one, or put all outputs into one MultiOutputNode"
        )
        raise GraphUsageError(msg)


def _sources(nodes: list[Any]) -> str:
    return ", ".join(node._source for node in nodes)


def _number(members: list[DAGNode], source: InputNode | None) -> list[DAGNode]:
    """Order the nodes breadth first from the input, downstream before upstream.

    An output the user made has its place among them; one that compile adds comes last.
    """
    start: DAGNode = source if source is not None else members[0]
    found: dict[int, DAGNode] = {id(start): start}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        downstream = sorted(node._downstream, key=lambda other: other._order)
        for other in (*downstream, *node._partners(), *node._upstream()):
            if id(other) not in found:
                found[id(other)] = other
                queue.append(other)
    return list(found.values())


class _Capture:
    """The tables that fill while nodes turn into data."""

    def __init__(self, members: list[DAGNode]) -> None:
        self._members = members
        self._ids = {id(node): NodeId(number) for number, node in enumerate(members)}
        self._actors: dict[ActorId, Actor] = {}
        self._constants: list[Any] = []
        self._bindings: dict[int, CollectiveBinding] = {}
        self._targets: dict[NodeId, Target] = {}
        self._communicators: list[Communicator] = []

    def graph(self, output: DAGNode, default: Communicator | Literal["create"] | None) -> Captured:
        nodes = [self._node(node) for node in self._members]
        single = not isinstance(output, MultiOutputNode)
        if single:
            nodes.append(self._added_output(output))
        host = self._host()
        operations = tuple(
            self._operation(number, binding)
            for number, binding in enumerate(self._bindings.values())
        )
        number = default if default is None or default == "create" else self._communicator(default)
        users = tuple(UserCommunicator(one, actors_of(one, host)) for one in self._communicators)
        graph = Graph(
            nodes=tuple(nodes),
            operations=operations,
            output=nodes[-1].id if single else self._ids[id(output)],
            single_output=single,
            actors=tuple(self._actors),
            labels=tuple(actor.label for actor in self._actors.values()),
            gpus=self._gpus(nodes),
            communicators=tuple(
                describe(CommunicatorId(index), one.communicator, one.actors)
                for index, one in enumerate(users)
            ),
            default_communicator=number,
        )
        return Captured(
            graph,
            host,
            tuple(self._actors.values()),
            tuple(self._constants),
            tuple(binding.op for binding in self._bindings.values()),
            self._targets,
            users,
        )

    def _added_output(self, output: DAGNode) -> Node:
        """Return the output node of a graph that ends in a single value."""
        return Node(
            id=NodeId(len(self._members)),
            actor=DRIVER,
            op=Output(values=(self._tree(output),)),
            order=max(node._order for node in self._members) + 1,
            label="output",
        )

    def _host(self) -> Host:
        # By host and number: two sessions may have given one number to different actors.
        actors = {(id(t.actor.host), t.actor.actor_id): t.actor for t in self._targets.values()}
        hosts = {id(actor.host): actor.host for actor in actors.values()}
        if not hosts:
            msg = "the graph calls no actor: bind at least one method of an actor"
            raise GraphError(msg)
        if len(hosts) > 1:
            names = ", ".join(actor.label for actor in actors.values())
            msg = f"the graph's actors belong to different sessions: {names}"
            raise GraphError(msg)
        return next(iter(hosts.values()))

    def _node(self, node: DAGNode) -> Node:
        number = self._ids[id(node)]
        actor = DRIVER
        call = actor_call(node)
        if isinstance(node, ClassMethodNode):
            _check_kind(node)
        if call is not None:
            target = call._target
            if target is None:
                msg = f"{call!r} is a method of an actor that is not made: not compiled yet"
                raise GraphError(msg)
            actor = target.actor.actor_id
            self._actors.setdefault(actor, target.actor)
            self._targets[number] = target
        return Node(
            id=number,
            actor=actor,
            op=self._op(node),
            order=node._order,
            label=node._label,
            source=node._source,
            hint=self._hint(node),
        )

    def _gpus(self, nodes: list[Node]) -> tuple[Gpus, ...]:
        """Return every actor's GPUs, where a hint makes them matter."""
        if not any(node.hint for node in nodes):
            return ()
        return tuple(
            Gpus(logical=actor.num_gpus, physical=tuple(actor.physical_gpus))
            for actor in self._actors.values()
        )

    def _hint(self, node: DAGNode) -> Hint | None:
        hint: TorchTensorType | None = node._hint
        if hint is None and isinstance(node, InputAttributeNode):
            hint = node._input._hint  # what is said of the input holds for its fields
        if hint is None:
            return None
        communicator = hint.get_custom_communicator()
        return Hint(
            transport=hint.transport_name,
            device=hint.device_name,
            static_shape=hint.static_shape,
            direct_return=hint.direct_return,
            communicator=None if communicator is None else self._communicator(communicator),
        )

    def _communicator(self, communicator: Communicator) -> CommunicatorId:
        """Return the number of a user's communicator, a new one the first time."""
        for number, known in enumerate(self._communicators):
            if known is communicator:
                return CommunicatorId(number)
        self._communicators.append(communicator)
        return CommunicatorId(len(self._communicators) - 1)

    def _op(self, node: DAGNode) -> Op:
        match node:
            case InputNode():
                return Input()
            case InputAttributeNode():
                return Input(key=node._key)
            case ClassMethodNode():
                return Call(
                    method=node._method.name,
                    arguments=self._arguments(node),
                    num_returns=max(1, node._method.num_returns),
                )
            case ElementNode():
                return Element(source=self._ids[id(node._call)], index=node._index)
            case CollectiveOutputNode():
                self._bindings.setdefault(id(node._binding), node._binding)
                number = list(self._bindings).index(id(node._binding))
                return Collective(
                    operation=OperationId(number),
                    rank=node._rank,
                    source=self._ids[id(node._bound_args[0])],
                )
            case MultiOutputNode():
                return Output(
                    values=tuple(
                        self._argument(node, *item) for item in enumerate(node._bound_args)
                    )
                )
        msg = f"{node!r} cannot be part of a graph here"
        raise GraphError(msg)

    def _operation(self, number: int, binding: CollectiveBinding) -> Operation:
        nodes = tuple(self._ids[id(output)] for output in binding.outputs)
        targets = [self._targets[node] for node in nodes]
        members = tuple(target.actor.actor_id for target in targets)
        communicator = binding.communicator
        return Operation(
            id=OperationId(number),
            text=str(binding.op),
            members=members,
            nodes=nodes,
            method=binding.op.method,
            backend=binding.op.transport,
            communicator=None if communicator is None else self._communicator(communicator),
        )

    def _arguments(self, node: DAGNode) -> Arguments:
        return Arguments(
            tuple(self._argument(node, *item) for item in enumerate(node._bound_args)),
            tuple(
                (name, self._argument(node, name, value))
                for name, value in node._bound_kwargs.items()
            ),
        )

    def _argument(self, node: DAGNode, name: int | str, value: Any) -> Tree:
        for hidden, whole in search(value, DAGNode).hidden:
            where = "a key of a dict" if type(whole) is dict else f"a {type(whole).__name__}"
            msg = (
                f"argument {name!r} of {node._label}, bound at {node._source}, has {hidden!r} "
                f"inside {where}. In a compiled graph nodes may stand in lists, tuples and "
                "values of dicts only: take the object apart"
            )
            raise GraphError(msg)
        return self._tree(value)

    def _tree(self, value: Any) -> Tree:
        if isinstance(value, DAGNode):
            if isinstance(value, MultiOutputNode):
                msg = f"{value!r} is an output and cannot be an argument"
                raise GraphError(msg)
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
        self._constants.append(value)
        return Const(len(self._constants) - 1)


def _check_kind(node: ClassMethodNode) -> None:
    """Refuse methods that return before their work is done: a node's value is made in one go."""
    function = node._method.function
    if inspect.iscoroutinefunction(function):
        kind, remedy = "a coroutine method", "make it a plain one, which may call asyncio.run"
    elif inspect.isasyncgenfunction(function):
        kind, remedy = "an async generator method", "return a list from a plain one"
    elif inspect.isgeneratorfunction(function):
        kind, remedy = "a generator method", "return a list, or bind one call per value"
    else:
        return
    msg = f"{node._label}, bound at {node._source}, is {kind}. In a graph, {remedy}"
    raise GraphError(msg)
