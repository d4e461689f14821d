"""Pass: which values travel, and over which channels.

One channel per value that anybody else needs, written once for all its readers. Values used only
on their own actor stay in a slot there.

The values of one call that a process group carries to the same readers have one channel: they exist
at the same time, so that nobody can wait for one of them with another still to be made.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from compiled_dag.channel.layout import ChannelSpec
from compiled_dag.ir import DRIVER, Element, Graph, Input, NodeId
from compiled_dag.plan import DRIVER_PARTICIPANT, Channels, Transports, remote_readers

if TYPE_CHECKING:
    from compiled_dag.channel.transport import Transport
    from compiled_dag.host import ActorId


def plan_channels(
    graph: Graph,
    order: tuple[NodeId, ...],
    transports: Transports,
    depth: int,
) -> Channels:
    """Return the channels of all travelling values, and a trigger where an actor needs one.

    Args:
        graph: The graph.
        order: The total order of its nodes.
        transports: How each value that travels does.
        depth: Descriptor slots per channel: the executions in flight.
    """
    participant = {actor: number for number, actor in enumerate(graph.actors, 1)}
    participant[DRIVER] = DRIVER_PARTICIPANT
    readers = remote_readers(graph)
    joined = _joined(graph, order, transports, readers)
    specs: list[ChannelSpec] = []
    of_value: dict[NodeId, int] = {}
    for value in [node.id for node in graph.nodes if isinstance(node.op, Input)] + list(order):
        if value in readers and value not in of_value:
            beside = joined.get(value, ())
            of_value |= dict.fromkeys((value, *beside), len(specs))
            specs.append(
                ChannelSpec(
                    index=len(specs),
                    writer=participant[graph.nodes[value].actor],
                    readers=tuple(sorted(participant[actor] for actor in readers[value])),
                    depth=depth,
                    label=", ".join(_label(graph, one) for one in (value, *beside)),
                    node=value,
                    beside=beside,
                    transport=transports.of_value[value],
                )
            )
    idle = _without_first_read(graph, order, participant)
    trigger = None
    if idle:
        trigger = len(specs)
        specs.append(
            ChannelSpec(
                index=trigger,
                writer=DRIVER_PARTICIPANT,
                readers=tuple(sorted(idle)),
                depth=depth,
                label="start",
                node=None,
            )
        )
    return Channels(specs=tuple(specs), of_value=of_value, trigger=trigger)


def _joined(
    graph: Graph,
    order: tuple[NodeId, ...],
    transports: Transports,
    readers: dict[NodeId, set[ActorId]],
) -> dict[NodeId, tuple[NodeId, ...]]:
    """Return, by the first value of a call that travels with others, these others."""
    found: dict[tuple[NodeId, frozenset[ActorId], Transport], list[NodeId]] = defaultdict(list)
    for value in order:
        op = graph.nodes[value].op
        if isinstance(op, Element) and value in readers:
            transport = transports.of_value[value]
            if transport.joins:
                found[op.source, frozenset(readers[value]), transport].append(value)
    return {first: tuple(others) for first, *others in found.values()}


def _without_first_read(
    graph: Graph, order: tuple[NodeId, ...], participant: dict[ActorId, int]
) -> set[int]:
    """Return the participants whose first node needs no value from elsewhere."""
    seen: set[int] = set()
    idle: set[int] = set()
    for number in order:
        node = graph.nodes[number]
        own = participant[node.actor]
        if own not in seen:
            seen.add(own)
            if all(participant[graph.nodes[use].actor] == own for use in node.uses()):
                idle.add(own)
    return idle


def _label(graph: Graph, value: NodeId) -> str:
    node = graph.nodes[value]
    return str(node.op) if node.actor == DRIVER else f"{node.label}#{node.id}"
