"""From a schedule back to a program that communicates alike but has no values: for the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.channel.layout import ChannelSpec
from compiled_dag.channel.transport import UNHINTED, Transport
from compiled_dag.errors import GraphError
from compiled_dag.ir import NodeId, OperationId
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    OperationSpec,
    Program,
    Read,
    Step,
    Write,
)
from compiled_dag.tree import Arguments

if TYPE_CHECKING:
    from compiled_dag.schedule import Op, Schedule


_MEETING = Transport(mechanism="communicator")


def skeleton(schedule: Schedule) -> Program:
    """Return a program with the same communication, and no values.

    Raises:
        GraphError: Two operations contradict each other on a channel.
    """
    number_of = {label: number for number, (label, _) in enumerate(schedule.lanes)}
    channels = _channels(schedule, number_of)
    operations = _operations(schedule, number_of)
    steps = tuple(tuple(_step(op, channels, operations) for op in ops) for _, ops in schedule.lanes)
    return Program(
        participants=tuple(number_of),
        steps=steps,
        slots=(1,) * len(number_of),
        channels=tuple(channels.values()),
        operations=tuple(operations.values()),
        entries=(),
        outputs=(),
        single_output=False,
    )


def _step(op: Op, channels: dict[int, ChannelSpec], operations: dict[int, OperationSpec]) -> Step:
    number = -1 if op.channel is None else op.channel
    match op.kind:
        case "READ":
            return Read(channels[number].index, 0)
        case "WRITE":
            return Write(channels[number].index, 0)
        case "START":
            return CollectiveStart(operations[number].id, ())
        case "WAIT":
            return CollectiveWait(operations[number].id, ())
        case "COMPUTE":
            return Compute(NodeId(op.node), "-", Arguments(), ())


def _channels(schedule: Schedule, number_of: dict[str, int]) -> dict[int, ChannelSpec]:
    """Return the channels by their number in the schedule, numbered anew from 0."""
    names = dict(schedule.names)
    ends: dict[int, tuple[str, tuple[str, ...], int]] = {}
    for label, ops in schedule.lanes:
        for op in ops:
            if op.kind == "WRITE" and op.channel is not None:
                found = ends.setdefault(op.channel, (label, op.peers, op.node))
                if found != (label, op.peers, op.node):
                    msg = f"channel {op.channel} is written twice, by {found[0]} and {label}"
                    raise GraphError(msg)
    for label, ops in schedule.lanes:
        for op in ops:
            if op.kind == "READ" and op.channel is not None:
                writer, readers, _ = ends.setdefault(op.channel, (op.peers[0], (label,), op.node))
                if op.peers != (writer,) or label not in readers:
                    msg = (
                        f"{label} reads channel {op.channel} from {op.peers[0]}, but {writer} "
                        f"writes it for {', '.join(readers)}"
                    )
                    raise GraphError(msg)
    return {
        number: ChannelSpec(
            index=index,
            writer=_number(number_of, writer),
            readers=tuple(_number(number_of, reader) for reader in readers),
            depth=schedule.depth,
            label=f"{names[node]}#{node}",
            node=node,
            transport=_MEETING if number in schedule.meetings else UNHINTED,
        )
        for index, (number, (writer, readers, node)) in enumerate(sorted(ends.items()))
    }


def _operations(schedule: Schedule, number_of: dict[str, int]) -> dict[int, OperationSpec]:
    """Return the collectives by their number in the schedule, numbered anew from 0."""
    names = dict(schedule.names)
    nodes: dict[int, dict[str, int]] = {}
    peers: dict[int, dict[str, None]] = {}
    for label, ops in schedule.lanes:
        for op in ops:
            if op.kind in ("START", "WAIT") and op.channel is not None:
                nodes.setdefault(op.channel, {})[label] = op.node
                peers.setdefault(op.channel, {}).update(dict.fromkeys((label, *op.peers)))
    specs = {}
    for index, number in enumerate(sorted(nodes)):
        first = next(iter(nodes[number].values()))
        specs[number] = OperationSpec(
            id=OperationId(index),
            text=names[first].rsplit(", rank", 1)[0],
            members=tuple(_number(number_of, label) for label in peers[number]),
            nodes=tuple(NodeId(nodes[number].get(label, first)) for label in peers[number]),
        )
    return specs


def _number(number_of: dict[str, int], label: str) -> int:
    if label not in number_of:
        msg = f"{label} takes part in no operation of its own"
        raise GraphError(msg)
    return number_of[label]
