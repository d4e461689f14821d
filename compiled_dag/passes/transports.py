"""Pass: how every value that travels does, and why; refuses hints that cannot be kept.

A hint is of a value, so one decision serves all its readers. Nothing is asked of any process: what
counts is which actors have which GPUs, who is in the user's communicators, and what is known of
who can share GPU memory (`ir.Reach`). Before that is known `ring_candidates` says who is to be
asked.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, cast

from compiled_dag.channel.transport import Transport
from compiled_dag.communicator import HOST_TRANSPORT
from compiled_dag.errors import GraphError, GraphUsageError
from compiled_dag.ir import (
    DRIVER,
    CommunicatorId,
    Gpus,
    Graph,
    Hint,
    Input,
    Members,
    Node,
    NodeId,
    Operation,
    OperationId,
)
from compiled_dag.plan import Transports, remote_readers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compiled_dag.channel.transport import Mechanism
    from compiled_dag.host import ActorId
    from compiled_dag.ir import Reach
    from compiled_dag.operation import Backend


def resolve_transports(graph: Graph) -> Transports:
    """Return how each value that travels does, and what does the collectives.

    Raises:
        GraphError: A hint or a communicator does not fit the actors; names node, actors, remedy.
        GraphUsageError: A hint where nothing travels, or ``"auto"`` with several GPUs.
    """
    operations: dict[OperationId, CommunicatorId] = {}
    for operation in graph.operations:
        number = _communicator_of(graph, operation)
        if number is not None:
            operations[operation.id] = number
    readers = remote_readers(graph)
    used = {use for node in graph.nodes for use in node.uses()}
    edges = _Edges(graph)
    transports: dict[NodeId, Transport] = {}
    for node in graph.nodes:
        if node.id in readers:
            found = edges.resolve(node, tuple(sorted(readers[node.id])))
            writer = edges.label(node.actor)
            transports[node.id] = dataclasses.replace(found, node=node.describe(), writer=writer)
        elif node.id in used:
            edges.check_local(node)
    return Transports(of_value=transports, of_operation=operations)


def ring_candidates(graph: Graph) -> tuple[tuple[ActorId, ActorId], ...]:
    """Return the pairs, writer and reader, whose values would stay on GPUs if these can share them.

    Raises:
        GraphError: As `resolve_transports`.
        GraphUsageError: As `resolve_transports`.
    """
    edges = _Edges(dataclasses.replace(graph, reach=None))
    for value, readers in remote_readers(graph).items():
        edges.resolve(graph.nodes[value], tuple(sorted(readers)))
    return tuple(edges.candidates)


def group_candidates(graph: Graph) -> tuple[tuple[Backend, tuple[ActorId, ...]], ...]:
    """Return the groups that carry tensors, as far as known: backend and ends, by rank; each once.

    Raises:
        GraphError: As `resolve_transports`.
        GraphUsageError: As `resolve_transports`.
    """
    found: dict[tuple[Backend, tuple[ActorId, ...]], None] = {}
    edges, place = _Edges(graph), graph.actors.index
    for value, readers in remote_readers(graph).items():
        node = graph.nodes[value]
        transport = edges.resolve(node, tuple(sorted(readers)))
        if transport.has_group:
            backend = cast("Backend", transport.mechanism)
            found[backend, tuple(sorted((node.actor, *readers), key=place))] = None
    return tuple(found)


class _Ends(NamedTuple):
    """A value on its way."""

    node: Node
    hint: Hint
    actors: tuple[ActorId, ...]
    """The writer, then the readers."""
    gpus: tuple[Gpus, ...]
    labels: tuple[str, ...]

    @property
    def fakes(self) -> tuple[str, ...]:
        """Labels of those whose GPUs are fake."""
        named = zip(self.labels, self.gpus, strict=True)
        return tuple(label for label, gpus in named if gpus.logical and gpus.physical == ())


class _Edges:
    """The decisions on one graph's edges."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        gpus = graph.gpus or (Gpus(),) * len(graph.actors)
        self._gpus = dict(zip(graph.actors, gpus, strict=True))
        self._labels = dict(zip(graph.actors, graph.labels, strict=True))
        self._reach = {(one.writer, one.reader): one for one in graph.reach or ()}
        self.candidates: dict[tuple[ActorId, ActorId], None] = {}
        """Pairs of which it would have to be known whether they can share GPU memory."""

    def label(self, actor: ActorId) -> str:
        return self._labels.get(actor, "the driver")

    def resolve(self, node: Node, readers: tuple[ActorId, ...]) -> Transport:
        hint = node.hint
        if hint is None:
            return Transport()
        actors = (node.actor, *readers)
        gpus = tuple(self._gpus.get(actor, Gpus()) for actor in actors)
        ends = _Ends(node, hint, actors, gpus, tuple(map(self.label, actors)))
        found = self._choose(ends)
        if hint.views:
            found = self._with_views(found, ends)
        return dataclasses.replace(
            found,
            fakes=ends.fakes,
            device=hint.device,
            static_shape=hint.static_shape,
            direct_return=hint.direct_return,
        )

    def check_local(self, node: Node) -> None:
        """Refuse an accelerator hint on a value that never leaves its actor."""
        hint = node.hint
        if hint is None or not self._wants_accelerator(hint):
            return
        if isinstance(node.op, Input):
            _check_driver(node, ())
        msg = (
            f"{node.describe()} is hinted for an accelerator, but all its readers are on its own "
            f"actor {self.label(node.actor)}: the value never travels. Remove the hint"
        )
        raise GraphUsageError(msg)

    def _wants_accelerator(self, hint: Hint) -> bool:
        if hint.communicator is not None:
            return self._graph.communicators[hint.communicator].transport != HOST_TRANSPORT
        return hint.transport == "accelerator"

    def _choose(self, ends: _Ends) -> Transport:
        if ends.hint.transport == "shm":
            return Transport(reason="hinted so")
        if ends.hint.communicator is not None:
            return self._through(self._graph.communicators[ends.hint.communicator], ends)
        if ends.hint.transport == "accelerator":
            _check_driver(ends.node, ends.actors[1:])
            return self._accelerator(ends, "hinted so")
        return self._auto(ends)

    def _auto(self, ends: _Ends) -> Transport:
        if DRIVER in ends.actors:
            return Transport(reason="auto: the driver takes part")
        _check_one_gpu(ends)
        named = zip(ends.labels, ends.gpus, strict=True)
        without = [label for label, gpus in named if not gpus.logical]
        if without:
            return Transport(reason=f"auto: {_list(without)} has no GPU")
        if ends.fakes:
            return Transport(reason=f"auto: the GPU of {_list(ends.fakes)} is fake")
        devices = {gpus.physical[0] if gpus.physical else None for gpus in ends.gpus}
        if len(devices) == 1 and None not in devices:
            return Transport(reason=f"auto: all ends share GPU {devices.pop()}")
        return self._accelerator(ends, "auto: the ends have GPUs of their own")

    def _accelerator(self, ends: _Ends, reason: str) -> Transport:
        default = self._graph.default_communicator
        if isinstance(default, int):
            return self._through(self._graph.communicators[default], ends)
        if default is None:
            raise GraphError(_no_communicator(ends.node.describe(), "with_tensor_transport(...)"))
        for label, gpus in zip(ends.labels, ends.gpus, strict=True):
            if not gpus.logical:
                msg = (
                    f"{ends.node.describe()} is hinted for an accelerator, and actor {label}, one "
                    "of its ends, has no GPU. Start it with num_gpus, or hint 'auto' or 'shm'"
                )
                raise GraphError(msg)
        if ends.fakes:
            text = f"{reason}; the GPU of {_list(ends.fakes)} is fake"
            return Transport(mechanism="fake", reason=text)
        return self._device_ring(ends, reason)

    def _device_ring(self, ends: _Ends, reason: str) -> Transport:
        writer, *readers = ends.actors
        pairs = [(writer, reader) for reader in readers]
        self.candidates |= dict.fromkeys(pairs)
        if self._graph.reach is None:
            return Transport(mechanism="staged", reason=reason)
        found = [self._reach[pair] for pair in pairs]
        mechanism, why = _ring_of(found, [gpus.physical for gpus in ends.gpus])
        if mechanism in {"nccl", "gloo"}:
            return Transport(mechanism=mechanism, reason=f"{reason}; {why}")
        no_events = _first(one.no_events for one in found)
        host_ordered = mechanism != "staged" and bool(no_events)
        if host_ordered:
            why += f"; hosts wait for GPUs: {no_events}"
        return Transport(mechanism=mechanism, reason=f"{reason}; {why}", host_ordered=host_ordered)

    def _with_views(self, found: Transport, ends: _Ends) -> Transport:
        """Have readers get views where they can, and say so, or why not."""
        copies = "; views=True: readers get copies, since"
        if found.mechanism != "cuda_ipc":
            why = "the tensors are in no ring on a GPU"
            return dataclasses.replace(found, reason=f"{found.reason}{copies} {why}")
        writer, *readers = ends.actors
        far = [reader for reader in readers if not self._reach[writer, reader].on_one_gpu]
        if far:
            why = f"{self.label(writer)} is on another GPU than {_list(map(self.label, far))}"
            return dataclasses.replace(found, reason=f"{found.reason}{copies} {why}")
        reason = f"{found.reason}; views=True: readers get no copies"
        return dataclasses.replace(found, views=True, reason=reason)

    def _through(self, members: Members, ends: _Ends) -> Transport:
        """Have a user's communicator carry the value."""
        if members.transport == HOST_TRANSPORT:
            reason = f"{members.label} is of transport {HOST_TRANSPORT!r}"
            return Transport(reason=reason)
        _check_driver(ends.node, ends.actors[1:])
        missing = [actor for actor in ends.actors if actor not in members.actors]
        if missing:
            names = _list(self.label(actor) for actor in missing)
            msg = (
                f"{ends.node.describe()} travels through {members.label} of "
                f"{_list(members.labels)}, which lacks {names}. Writer and readers must be members"
            )
            raise GraphError(msg)
        for method in ("send", "recv"):
            _check_implements(members, method, ends.node.describe())
        return Transport(
            mechanism="communicator", reason=f"by {members.label}", communicator=members.id
        )


def _ring_of(
    reach: Sequence[Reach], gpus: Sequence[tuple[str, ...] | None]
) -> tuple[Mechanism, str]:
    """Return what the tensors of one value go through, and why; `gpus` are those of its ends."""
    no_memory = _first(one.no_memory for one in reach)
    if not no_memory:
        return "cuda_ipc", "; ".join(dict.fromkeys(one.where for one in reach))
    backend = reach[0].backend
    firsts = {each[0] for each in gpus if each}
    no_group = _first(one.no_group for one in reach)
    if backend and len(firsts) == len(gpus) and all(one.backend == backend for one in reach):
        if not no_group:
            return backend, f"{no_memory}; every end has a GPU of its own"
        no_memory += f"; {no_group}"
    no_pinning = _first(one.no_pinning for one in reach)
    if not no_pinning:
        return "pinned", no_memory
    return "staged", f"{no_memory}; {no_pinning}" if no_pinning != no_memory else no_memory


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _check_driver(node: Node, readers: tuple[ActorId, ...]) -> None:
    """Refuse accelerator transport where the driver is an end: it is no rank and has no GPU."""
    if node.actor == DRIVER:
        msg = (
            f"{node.describe()} is hinted for an accelerator: inputs come from the driver, which "
            "is no rank of any communicator. Hint 'auto' or 'shm'"
        )
        raise GraphError(msg)
    if DRIVER in readers:
        msg = (
            f"{node.describe()} is hinted for an accelerator, and the driver reads it, which is "
            "no rank of any communicator. Hint 'auto' or 'shm'"
        )
        raise GraphError(msg)


def _check_one_gpu(ends: _Ends) -> None:
    for label, gpus in zip(ends.labels, ends.gpus, strict=True):
        if gpus.logical > 1:
            msg = (
                f"{ends.node.describe()} is hinted 'auto', and actor {label} has "
                f"{gpus.logical:g} GPUs: which one its tensors are for cannot be told. Give the "
                "actor one GPU, or hint 'accelerator' (the actor's first) or 'shm'"
            )
            raise GraphUsageError(msg)


def _communicator_of(graph: Graph, operation: Operation) -> CommunicatorId | None:
    """Return the user's communicator that does a collective; None for a group of ours."""
    if operation.method == "barrier":
        return None  # nothing moves: the ranks meet in our memory
    default = graph.default_communicator
    number = operation.communicator
    if number is None and operation.backend is None:
        if default is None:
            raise GraphError(_no_communicator(_of_operation(graph, operation), "transport=..."))
        number = None if default == "create" else default
    if number is None:
        return None
    members = graph.communicators[number]
    label_of = dict(zip(graph.actors, graph.labels, strict=True))
    label_of.update(zip(members.actors, members.labels, strict=True))
    missing = [label_of[a] for a in operation.members if a not in members.actors]
    extra = [label_of[a] for a in members.actors if a not in operation.members]
    if missing or extra:
        msg = (
            f"{_of_operation(graph, operation)} and {members.label} must have the same actors: "
            f"{members.label} lacks {_list(missing) or 'nobody'} and has {_list(extra) or 'nobody'}"
            " besides"
        )
        raise GraphError(msg)
    if members.transport == HOST_TRANSPORT and operation.method not in members.operations:
        return None  # it leaves to a group of ours what it does not do itself
    _check_implements(members, operation.method, _of_operation(graph, operation))
    return number


def _check_implements(members: Members, method: str, who: str) -> None:
    if method not in members.operations:
        msg = (
            f"{who} needs {members.label}.{method}, which {members.label} does not implement. "
            "Override it, or use another transport"
        )
        raise GraphError(msg)


def _no_communicator(who: str, argument: str) -> str:
    return (
        f"{who} needs a communicator, has none of its own, and _default_communicator is None. "
        f"Give it one ({argument}), or compile with _default_communicator='create' or a "
        "Communicator"
    )


def _of_operation(graph: Graph, operation: Operation) -> str:
    return f"{operation.text} of {_list(graph.nodes[n].describe() for n in operation.nodes)}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
