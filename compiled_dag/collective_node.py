"""Collective operations over the nodes of several actors, as one node per rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from compiled_dag.call_node import CallNode, ElementNode
from compiled_dag.class_node import PARENT_CLASS_NODE_KEY, ClassMethodNode, ClassNode
from compiled_dag.errors import GraphError
from compiled_dag.node import DAGNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.communicator import Communicator
    from compiled_dag.host import Actor, Host
    from compiled_dag.operation import CollectiveOp

COLLECTIVE_OPERATION_KEY: Final = "collective_operation"


class Home(NamedTuple):
    """Where a node runs."""

    parent: Any
    """The class node, or the handle."""
    actor: Actor | None
    """None if the graph is to make it."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return repr(self.parent) if self.actor is None else self.actor.label

    @property
    def host(self) -> Host:
        """The session of its actor."""
        host: Host = self.parent._class.host if self.actor is None else self.actor.host
        return host


class CollectiveBinding:
    """One collective operation over the nodes of several actors; shared by its output nodes."""

    def __init__(
        self,
        op: CollectiveOp,
        buckets: Sequence[Sequence[Any]],
        communicator: Communicator | None,
        results_on: int | None = None,
    ) -> None:
        self.op = op
        self.buckets = tuple(map(tuple, buckets))
        """Nodes by rank, and actors that bring nothing in place of nodes."""
        self.communicator = communicator
        self.results_on = results_on
        """The only rank that gets anything, and whose node users have, if it is one."""
        self.outputs: tuple[CollectiveOutputNode, ...] = ()

    @property
    def actor_handles(self) -> list[Any]:
        """The actors, by rank: handles, or the nodes of those that the graph is to make."""
        return [self.home(rank).parent for rank in range(len(self.buckets[0]))]

    def __str__(self) -> str:
        return f"{self.op} of {', '.join(self.home(r).label for r in range(len(self.buckets[0])))}"

    def inputs(self, rank: int) -> tuple[DAGNode, ...]:
        """Return what a rank brings, by bucket; nothing if its actor stands for it."""
        entries = (bucket[rank] for bucket in self.buckets)
        return tuple(e for e in entries if isinstance(e, DAGNode) and not isinstance(e, ClassNode))

    def home(self, rank: int) -> Home:
        """Return where a rank is."""
        home = _home_of_entry(self.buckets[0], rank)
        assert home is not None, "checked when it was bound"
        return home


class CollectiveOutputNode(CallNode):
    """What one rank gets out of a collective operation."""

    is_class_method_call: ClassVar = True
    is_class_method_output: ClassVar = False
    class_method_call: ClassVar = None
    output_idx: ClassVar = None

    def __init__(self, binding: CollectiveBinding, rank: int, num_returns: int) -> None:
        self._binding = binding
        self._rank = rank
        self._num_results = num_returns
        others: dict[str, Any] = {COLLECTIVE_OPERATION_KEY: binding}
        entry = binding.buckets[0][rank]
        if isinstance(entry, ClassNode):
            others[PARENT_CLASS_NODE_KEY] = entry
        super().__init__(binding.inputs(rank), others=others)

    @property
    def num_returns(self) -> int:
        """How many tensors the rank gets."""
        return self._num_results

    @property
    def collective_op(self) -> CollectiveBinding:
        """The operation that it is one rank's part of."""
        return self._binding

    def get_method_name(self) -> str:
        """Return the name of the operation."""
        return self._binding.op.method

    @property
    def _num_returns(self) -> int:
        return self._num_results

    def _partners(self) -> tuple[DAGNode, ...]:
        return self._binding.outputs

    @property
    def _label(self) -> str:
        return f"{self._binding.op}, rank {self._rank}"


ClassMethodNode.register(CollectiveOutputNode)


def bind_collective(
    op: CollectiveOp,
    buckets: Sequence[Sequence[Any]],
    communicator: Communicator | None = None,
    *,
    results_on: int | None = None,
) -> list[Any]:
    """Draw one collective operation.

    Args:
        op: The operation.
        buckets: One list or several, each with one node per actor, by rank. A rank that brings
            nothing may have its actor in place of a node.
        communicator: The user's own, which does it; None for a group of ours.
        results_on: The only rank that gets anything, if it is one.

    Returns:
        One node per rank; with several buckets one list per rank, with a node per bucket.

    Raises:
        GraphError: An input is no node of an actor, or two of a bucket are on one actor, or the
            buckets are not of the same actors in the same order.
    """
    _check_not_transposed(op, buckets)
    homes = [
        _homes(op, bucket, f"list {number} of the inputs" if len(buckets) > 1 else "")
        for number, bucket in enumerate(buckets)
    ]
    for number in range(1, len(buckets)):
        _check_alike(op, homes[0], homes[number], number)
    binding = CollectiveBinding(op, buckets, communicator, results_on)
    ranks = range(len(buckets[0]))
    num_returns = [len(buckets) if results_on in (None, rank) else 1 for rank in ranks]
    binding.outputs = tuple(
        CollectiveOutputNode(binding, rank, num_returns[rank]) for rank in ranks
    )
    if len(buckets) == 1:
        return list(binding.outputs)
    return [list(node._elements()) if node._num_returns > 1 else [node] for node in binding.outputs]


def _homes(op: CollectiveOp, bucket: Sequence[Any], name: str) -> list[Home]:
    """Return where the inputs of a bucket are; refuses what is not one node of each actor."""
    if not bucket:
        msg = f"{op}: {name or 'the list of inputs'} is empty"
        raise GraphError(msg)
    where = f" of {name.removesuffix(' of the inputs')}" if name else ""
    homes: dict[Any, Home] = {}
    for position, entry in enumerate(bucket):
        gets = op.only_gets(position)
        home = _home_of_entry(bucket, position) if gets else home_of(entry)
        if home is None:
            also = ", nor an actor" if gets else ""
            msg = (
                f"{op}: input {position}{where} ({entry!r}) is not a method of an actor{also}. "
                "Give what actor.method.bind(...) returns, of each actor"
            )
            raise GraphError(msg)
        if home.parent in homes:
            other = list(homes).index(home.parent)
            msg = (
                f"{op}: inputs {other} and {position}{where} are both on actor {home.label}. "
                "A collective takes one node of each actor"
            )
            raise GraphError(msg)
        homes[home.parent] = home
    return list(homes.values())


def _check_not_transposed(op: CollectiveOp, buckets: Sequence[Sequence[Any]]) -> None:
    """Refuse lists of which each has the nodes of one actor, in place of one node of each."""
    parents = [[home and home.parent for home in map(home_of, bucket)] for bucket in buckets]
    lists = [of for of in parents if len(of) > 1 and None not in of and of.count(of[0]) == len(of)]
    if len(buckets) > 1 and len(lists) == len(buckets):
        msg = (
            f"{op}: each list has the nodes of one actor: list 0 is all of {name_of(buckets[0][0])}"
            f", list 1 of {name_of(buckets[1][0])}. A list has one node of each actor, and there "
            "is one list per tensor: pass list(zip(*lists))"
        )
        raise GraphError(msg)


def name_of(entry: object) -> str:
    """Return what messages call the actor of an input."""
    home = home_of(entry)
    return repr(entry) if home is None else home.label


def _check_alike(
    op: CollectiveOp, first: Sequence[Home], other: Sequence[Home], number: int
) -> None:
    """Refuse a bucket of other actors than the first."""
    if [home.parent for home in first] != [home.parent for home in other]:
        names = [", ".join(home.label for home in homes) for homes in (first, other)]
        msg = (
            f"{op}: list 0 is of {names[0]}, list {number} of {names[1]}. All lists take the same "
            "actors in the same order: a position is a rank"
        )
        raise GraphError(msg)


def home_of(node: object) -> Home | None:
    """Return where a node runs, or None if it runs on no actor."""
    while True:
        match node:
            case ElementNode():
                node = node._call
            case CollectiveOutputNode():
                return node._binding.home(node._rank)
            case ClassMethodNode():  # last: the others count as one
                target = node._target
                return Home(node._parent, None if target is None else target.actor)
            case _:
                return None


def _home_of_entry(bucket: Sequence[Any], rank: int) -> Home | None:
    """Return where an input of a bucket is: a node, a class node, or the handle of an actor."""
    entry = bucket[rank]
    if isinstance(entry, ClassNode):
        return Home(entry, None)
    home = home_of(entry)
    if home is not None or isinstance(entry, DAGNode):
        return home
    for other in bucket:
        beside = home_of(other)
        if beside is not None:
            try:
                return Home(entry, beside.host.bound_actor(entry))
            except TypeError:
                return None
    return None
