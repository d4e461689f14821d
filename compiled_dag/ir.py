"""The graph as data: numbered nodes, no live objects.

`capture` makes it from the user's nodes; lint and the passes read it. Actors are ids, constants and
collective operations numbers into tables kept beside the graph, so that a graph pickles, compares
and prints, and is tested with no process alive.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NewType, TypeAlias

from compiled_dag.host import ActorId
from compiled_dag.tree import Val, leaves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiled_dag.operation import Backend
    from compiled_dag.tree import Arguments, Tree

NodeId = NewType("NodeId", int)
OperationId = NewType("OperationId", int)
CommunicatorId = NewType("CommunicatorId", int)

TransportName: TypeAlias = Literal["auto", "accelerator", "shm"]
DeviceName: TypeAlias = Literal["default", "cpu", "cuda"]

DRIVER = ActorId(-1)
"""Where the input and output nodes live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What `execute` is given, whole (`key` None) or one argument of it."""

    key: int | str | None = None

    def __str__(self) -> str:
        return "input" if self.key is None else f"input[{self.key!r}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A method call on the node's actor."""

    method: str
    arguments: Arguments
    num_returns: int = 1
    cuda_graph: bool = False
    """Whether its work on the GPU is to be recorded once, and played."""

    def __str__(self) -> str:
        return f"{self.method}({self.arguments})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One of the values of a call with several returns, or of a collective of several tensors."""

    source: NodeId
    index: int

    def __str__(self) -> str:
        return f"v{self.source}[{self.index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One rank's part in a collective operation."""

    operation: OperationId
    rank: int
    sources: tuple[NodeId, ...]
    """What the rank brings, a node per bucket; none where it only gets."""
    num_returns: int = 1
    """Values that it gets: one, or an `Element` per bucket."""

    def __str__(self) -> str:
        return f"op{self.operation}.rank{self.rank}({', '.join(f'v{s}' for s in self.sources)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the driver gets back: values, or constants."""

    values: tuple[Tree, ...]

    def __str__(self) -> str:
        return f"output({', '.join(map(str, self.values))})"


Op: TypeAlias = Input | Call | Element | Collective | Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What the user says about the tensors in a node's value."""

    transport: TransportName = "auto"
    device: DeviceName = "default"
    """Where they land."""
    static_shape: bool = False
    direct_return: bool = False
    views: bool = False
    communicator: CommunicatorId | None = None
    """What carries them, if the user gave one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: what it does, where, and what messages call it."""

    id: NodeId
    actor: ActorId
    op: Op
    order: int
    """Position of its `.bind()` among all binds."""
    label: str
    """``Class.method``"""
    source: str = field(default="", compare=False)
    """``file:line`` of its `.bind()`."""
    hint: Hint | None = None

    def uses(self) -> tuple[NodeId, ...]:
        """Return the nodes whose values it needs, each once."""
        match self.op:
            case Input():
                return ()
            case Call(arguments=arguments):
                return tuple(NodeId(value) for value in arguments.values())
            case Element(source=source):
                return (source,)
            case Collective(sources=sources):
                return tuple(dict.fromkeys(sources))
            case Output(values=values):
                found = (leaf for tree in values for leaf in leaves(tree))
                return tuple(dict.fromkeys(NodeId(v.id) for v in found if isinstance(v, Val)))

    @property
    def num_returns(self) -> int:
        """Return how many values its work makes; the `Element`s of several are nodes."""
        return self.op.num_returns if isinstance(self.op, Call | Collective) else 1

    def __str__(self) -> str:
        return f"v{self.id} = {self.op}"

    def describe(self) -> str:
        """Return what messages call it: name, number, place."""
        bound = f", bound at {self.source}" if self.source else ""
        return f"{self.label} (node {self.id}{bound})"


def is_captured(node: Node) -> bool:
    """Tell whether a node's work on the GPU is to be recorded once, and played."""
    return isinstance(node.op, Call) and node.op.cuda_graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One collective operation over several actors."""

    id: OperationId
    text: str
    """For example ``allreduce(AVG)``."""
    members: tuple[ActorId, ...]
    """Actors by rank."""
    nodes: tuple[NodeId, ...]
    """Its nodes by rank."""
    method: str
    """The `Communicator` method that does it."""
    backend: str | None = None
    """What the user wants it to run on, if anything."""
    communicator: CommunicatorId | None = None
    """The user's own, if given."""
    inplace: bool = False
    """Whether results go where the inputs are."""
    frees_input: bool = False
    """Whether its inputs may change while it is under way."""
    results_on: int | None = None
    """The only rank that gets anything, if it is one; the others' nodes only have it take part."""

    @property
    def without_result(self) -> tuple[NodeId, ...]:
        """The nodes of ranks that get nothing, by rank."""
        only = self.results_on
        return () if only is None else self.nodes[:only] + self.nodes[only + 1 :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """A user's communicator, as far as checks need it."""

    id: CommunicatorId
    label: str
    """Its class."""
    transport: str
    """What it calls itself."""
    actors: tuple[ActorId, ...]
    """By rank."""
    labels: tuple[str, ...]
    """By rank."""
    operations: tuple[str, ...]
    """Methods that it implements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """The GPUs of one actor."""

    logical: float = 0
    physical: tuple[str, ...] | None = ()
    """Names of the devices behind them; empty where they are fake or none, None as long as the
    actor waits for its resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the GPUs of two actors can share, as far as they tried; texts say what refused it."""

    writer: ActorId
    reader: ActorId
    where: str = ""
    """On which GPUs they are."""
    on_one_gpu: bool = False
    no_memory: str = ""
    no_events: str = ""
    no_pinning: str = ""
    """About memory of the host that both GPUs read and write."""
    backend: Backend = ""
    """What process groups of such devices run on; empty if they can be in none."""
    no_group: str = ""
    """Why one of them did not form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinning:
    """Whether an actor's GPU can read and write memory of the host that processes share."""

    actor: ActorId
    refused: str = ""
    """What refused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Calls of functions that need the same kind of process, before each has a worker."""

    id: ActorId
    """Stands in place of an actor at these calls."""
    label: str
    """What messages call one of its workers."""
    most: int
    """Workers there is room for."""
    alone: bool = False
    """Whether it is one function with a worker of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A whole graph. ``nodes[i].id == i``."""

    nodes: tuple[Node, ...]
    operations: tuple[Operation, ...]
    output: NodeId
    """The one node that is an `Output`."""
    single_output: bool
    """Whether `execute` returns one ref instead of a list."""
    actors: tuple[ActorId, ...]
    """In the order in which their first nodes were bound; actor i is participant i + 1."""
    labels: tuple[str, ...]
    """Label of each actor."""
    gpus: tuple[Gpus, ...] = ()
    """Of each actor; left out where there are none."""
    reach: tuple[Reach, ...] | None = None
    """Of pairs that are to share GPU memory; None before they were asked."""
    pinning: tuple[Pinning, ...] = ()
    """Of actors that were asked."""
    communicators: tuple[Members, ...] = ()
    default_communicator: CommunicatorId | Literal["create"] | None = "create"
    """What carries accelerator edges and collectives that name no communicator."""

    @property
    def outputs(self) -> tuple[Tree, ...]:
        """Values (or constants) the driver gets back."""
        op = self.nodes[self.output].op
        assert isinstance(op, Output), f"not the output: {op}"
        return op.values

    def with_actors(self, known: Mapping[ActorId, tuple[ActorId, str]]) -> Graph:
        """Return the graph with other actors, given by number and label, in place of some."""

        def now(actor: ActorId) -> ActorId:
            return known[actor][0] if actor in known else actor

        labels = zip(self.actors, self.labels, strict=True)
        return dataclasses.replace(
            self,
            nodes=tuple(dataclasses.replace(node, actor=now(node.actor)) for node in self.nodes),
            operations=tuple(
                dataclasses.replace(one, members=tuple(map(now, one.members)))
                for one in self.operations
            ),
            actors=tuple(map(now, self.actors)),
            labels=tuple(known[actor][1] if actor in known else label for actor, label in labels),
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self.nodes))
