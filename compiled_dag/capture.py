"""From the user's nodes to data: number them, flatten arguments, keep live objects beside."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compiled_dag.accelerator import class_of
from compiled_dag.call_node import CallNode, ElementNode, element_label
from compiled_dag.class_node import ClassMethodNode, ClassNode
from compiled_dag.collective_node import CollectiveBinding, CollectiveOutputNode, home_of
from compiled_dag.errors import GraphError
from compiled_dag.function_node import FunctionNode
from compiled_dag.gpus import gpus_of
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
    is_captured,
)
from compiled_dag.lint_nodes import check_arity, check_kind, one_input, one_output
from compiled_dag.members import Recipes, actors_of, describe
from compiled_dag.output_node import MultiOutputNode
from compiled_dag.owned import Owned
from compiled_dag.placing import Placing
from compiled_dag.templates import Templates
from compiled_dag.walk import component

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compiled_dag.accelerator import Recipe
    from compiled_dag.bindable import RemoteFunction
    from compiled_dag.communicator import Communicator
    from compiled_dag.hints import TorchTensorType
    from compiled_dag.host import Actor, ActorId, Host
    from compiled_dag.ir import Pool
    from compiled_dag.node import DAGNode
    from compiled_dag.operation import CollectiveOp
    from compiled_dag.owned import NewActor
    from compiled_dag.tree import Tree


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph and the live objects its numbers stand for."""

    graph: Graph
    host: Host
    actors: tuple[Actor, ...]
    """Handles, in the graph's order; holding them keeps the actors alive."""
    constants: tuple[Any, ...]
    """A class node stands for the handle of its actor."""
    operations: tuple[CollectiveOp, ...]
    new_actors: tuple[NewActor, ...]
    """Those that are to be made, in that order; also such as the graph calls no method of."""
    functions: Mapping[NodeId, Callable[..., Any]]
    """What calls of functions run."""
    pools: tuple[Pool, ...]
    pooled: Mapping[ActorId, RemoteFunction]
    """One function of each pool."""
    owned: Owned
    """What was made for it: nothing so far."""
    communicators: tuple[UserCommunicator, ...]


@dataclass(frozen=True, slots=True)
class UserCommunicator:
    """A user's communicator and its members, by rank."""

    communicator: Communicator | Recipe
    actors: tuple[Actor, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return class_of(self.communicator).__name__


def capture(
    output: DAGNode,
    default_communicator: Communicator | Literal["create"] | None = "create",
    *,
    overlaps: bool = False,
) -> Captured:
    """Turn the connected graph around `output` into data.

    Args:
        output: The node.
        default_communicator: What carries what names no communicator; see `Graph`.
        overlaps: Whether communicators of a registered accelerator are to use streams of their own.

    Raises:
        GraphError: It calls nothing, or has actors of two sessions, or a generator or coroutine
            method, or a class node where none can be.
        GraphUsageError: It has two inputs or two outputs, or an input used without ``with``.
    """
    nodes = sorted(component(output), key=lambda node: node._order)
    source = one_input(nodes)
    one_output(nodes, output)
    numbered = _number(nodes, source)
    return _Capture(numbered, overlaps=overlaps).graph(output, default_communicator)


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

    def __init__(self, nodes: list[DAGNode], *, overlaps: bool) -> None:
        self._members = [node for node in nodes if not isinstance(node, ClassNode)]
        self._ids = {id(node): NodeId(number) for number, node in enumerate(self._members)}
        self._placing = Placing([node for node in nodes if isinstance(node, ClassNode)])
        self._templates = Templates(self._ids, self._element)
        self._more: list[Node] = []
        """Values of calls that the user passes on whole: they have no nodes of the user's."""
        self._more_ids: dict[tuple[int, int], NodeId] = {}
        """By `id` of the call, and index."""
        self._bindings: dict[int, CollectiveBinding] = {}
        self._communicators: list[Communicator | Recipe] = []
        self._recipes = Recipes(overlaps=overlaps)

    def graph(self, output: DAGNode, default: Communicator | Literal["create"] | None) -> Captured:
        self._place()
        nodes = [self._node(node) for node in self._members]
        added = not isinstance(output, MultiOutputNode)
        several = isinstance(output, CallNode) and output._num_returns > 1
        values = self._values(output) if added else ()
        nodes += self._more
        if added:
            nodes.append(self._added_output(values, nodes))
        placing = self._placing
        host = placing.host()
        operations = tuple(
            self._operation(number, binding, nodes)
            for number, binding in enumerate(self._bindings.values())
        )
        number = default if default is None or default == "create" else self._communicator(default)
        users = tuple(UserCommunicator(one, actors_of(one, host)) for one in self._communicators)
        graph = Graph(
            nodes=tuple(nodes),
            operations=operations,
            output=nodes[-1].id if added else self._ids[id(output)],
            single_output=added and not several,
            actors=tuple(placing.actors),
            labels=tuple(actor.label for actor in placing.actors.values()),
            gpus=self._gpus(nodes),
            communicators=tuple(
                describe(CommunicatorId(index), one.communicator, one.actors)
                for index, one in enumerate(users)
            ),
            default_communicator=number,
        )
        return Captured(
            graph=graph,
            host=host,
            actors=tuple(placing.actors.values()),
            constants=tuple(self._templates.constants),
            operations=tuple(binding.op for binding in self._bindings.values()),
            new_actors=placing.new_actors,
            functions=placing.functions,
            pools=placing.pools,
            pooled=placing.pooled,
            owned=Owned(host),
            communicators=users,
        )

    def _place(self) -> None:
        """Place the nodes as they were bound.

        Actors then stand in programs and pictures as the user wrote them down, not by how near
        to the input they are: the last stage of a pipeline may well take the input too.
        """
        for node in sorted(self._members, key=lambda node: node._order):
            self._placing.place(node, self._ids[id(node)])

    def _values(self, output: DAGNode) -> tuple[Tree, ...]:
        """Return the values of a graph that ends in another node than a `MultiOutputNode`."""
        if isinstance(output, CallNode) and output._num_returns > 1:
            return self._templates.elements(output)
        return (self._templates.output(output),)

    @staticmethod
    def _added_output(values: tuple[Tree, ...], nodes: list[Node]) -> Node:
        """Return the output node of such a graph."""
        return Node(
            id=NodeId(len(nodes)),
            actor=DRIVER,
            op=Output(values=values),
            order=max(node.order for node in nodes) + 1,
            label="output",
        )

    def _element(self, call: CallNode, index: int) -> NodeId:
        """Return the number of one of a call's values, a new one if the user has no node of it."""
        drawn = call._drawn_elements().get(index)
        if drawn is not None:
            return self._ids[id(drawn)]
        key = id(call), index
        if key not in self._more_ids:
            number = self._more_ids[key] = NodeId(len(self._members) + len(self._more))
            source = self._ids[id(call)]
            self._more.append(
                Node(
                    id=number,
                    actor=self._placing.place(call, source),
                    op=Element(source=source, index=index),
                    order=call._order,
                    label=element_label(call, index),
                    source=call._source,
                )
            )
        return self._more_ids[key]

    def _node(self, node: DAGNode) -> Node:
        number = self._ids[id(node)]
        return Node(
            id=number,
            actor=self._placing.place(node, number),
            op=self._op(node),
            order=node._order,
            label=node._label,
            source=node._source,
            hint=self._hint(node),
        )

    def _gpus(self, nodes: list[Node]) -> tuple[Gpus, ...]:
        """Return every actor's GPUs, where a hint or an option of a method makes them matter."""
        if not any(node.hint or is_captured(node) for node in nodes):
            return ()
        return tuple(map(gpus_of, self._placing.actors.values()))

    def _hint(self, node: DAGNode) -> Hint | None:
        hint: TorchTensorType | None = node._hint
        if hint is None and isinstance(node, InputAttributeNode):
            hint = node._input._hint  # what is said of the input holds for its fields
        if hint is None:
            return None
        communicator = hint.get_custom_communicator() or self._recipe_of_edges(hint)
        return Hint(
            transport=hint.transport_name,
            device=hint.device_name,
            static_shape=hint.static_shape,
            direct_return=hint.direct_return,
            views=hint.views,
            communicator=None if communicator is None else self._communicator(communicator),
        )

    def _recipe_of_edges(self, hint: TorchTensorType) -> Recipe | None:
        """Return the registered accelerator's communicator of all actors, if a hint wants it."""
        if not hint.requires_accelerator():
            return None
        found = map(home_of, sorted(self._members, key=lambda node: node._order))
        return self._recipes.of([home for home in found if home is not None])

    def _communicator(self, communicator: Communicator | Recipe) -> CommunicatorId:
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
            case ElementNode():
                return Element(source=self._ids[id(node._call)], index=node._index)
            case CollectiveOutputNode():
                self._bindings.setdefault(id(node._binding), node._binding)
                number = list(self._bindings).index(id(node._binding))
                return Collective(
                    operation=OperationId(number),
                    rank=node._rank,
                    sources=tuple(self._ids[id(source)] for source in node._bound_args),
                    num_returns=node._num_returns,
                )
            case FunctionNode():
                check_kind(node)
                check_arity(node)
                return self._call(node, node._label, cuda_graph=False)
            case ClassMethodNode():  # after the other calls of actors, which count as one
                check_kind(node)
                return self._call(node, node._method.name, cuda_graph=node._method.cuda_graph)
            case MultiOutputNode():
                return Output(values=tuple(map(self._templates.output, node._bound_args)))
        msg = f"{node!r} cannot be part of a graph here"
        raise GraphError(msg)

    def _call(self, node: CallNode, name: str, *, cuda_graph: bool) -> Call:
        return Call(
            method=name,
            arguments=self._templates.arguments(node),
            num_returns=node._num_returns,
            cuda_graph=cuda_graph,
        )

    def _operation(self, number: int, binding: CollectiveBinding, nodes: list[Node]) -> Operation:
        members = [nodes[self._ids[id(output)]] for output in binding.outputs]
        communicator: Communicator | Recipe | None = binding.communicator
        if communicator is None and binding.op.transport is None:
            ranks = range(len(members))
            communicator = self._recipes.of([binding.home(rank) for rank in ranks])
        return Operation(
            id=OperationId(number),
            text=str(binding.op),
            members=tuple(member.actor for member in members),
            nodes=tuple(member.id for member in members),
            method=binding.op.method,
            backend=binding.op.transport,
            inplace=binding.op.inplace,
            frees_input=binding.op.frees_input,
            results_on=binding.results_on,
            communicator=None if communicator is None else self._communicator(communicator),
        )
