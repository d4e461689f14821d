"""Pass: every participant's steps, in the one total order.

Per node: read what came from elsewhere (once per participant), compute, write at once, forget what
nobody needs any more. The driver writes its inputs first and reads the outputs last.

Where writer and readers must meet, all of them do so at the writer's place in the order: a reader
takes the value then, not when it needs it. Then everybody's communication is in the one order; were
it not, an actor that sends two values could wait for a reader that wants the second one first. What
the ranks of a collective send they send one after the other, once all have its result. Values that
have one channel are sent and read where the first of them is; all have been made by then.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from compiled_dag.ir import DRIVER, Call, Collective, Element, Graph, Input, Node, NodeId, Output
from compiled_dag.plan import DRIVER_PARTICIPANT, Channels, Transports, why_not_captured
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Entry,
    OperationSpec,
    Program,
    Read,
    Release,
    Step,
    Write,
)
from compiled_dag.tree import Const, Tree, Val, map_leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.host import ActorId


def build_steps(
    graph: Graph, order: tuple[NodeId, ...], channels: Channels, transports: Transports
) -> Program:
    """Return the program of every participant."""
    builders = {
        actor: _Builder(graph, channels, number) for number, actor in enumerate(graph.actors, 1)
    }
    driver = _Builder(graph, channels, DRIVER_PARTICIPANT)
    entries = _inputs(graph, channels, driver)
    everybody = (driver, *builders.values())
    last_use = _last_uses(graph, order)
    for nodes in _units(graph, order):
        made = [builders[node.actor].work(node) for node in nodes]
        for node, values in zip(nodes, made, strict=True):
            builders[node.actor].write(values)
            for reader in _met_readers(channels, node.id):
                everybody[reader].fetch(node.id)
        for node, values in zip(nodes, made, strict=True):
            builders[node.actor].release(node, values, last_use[node.actor])
    outputs = tuple(map_leaves(tree, driver.output) for tree in graph.outputs)
    number_of = {actor: builder.participant for actor, builder in builders.items()}
    return Program(
        participants=("driver", *graph.labels),
        steps=tuple(tuple(builder.steps) for builder in everybody),
        slots=tuple(len(builder.slot_of) + builder.anonymous for builder in everybody),
        channels=channels.specs,
        operations=tuple(
            OperationSpec(
                id=operation.id,
                text=operation.text,
                members=tuple(number_of[actor] for actor in operation.members),
                nodes=operation.nodes,
                communicator=transports.of_operation.get(operation.id),
            )
            for operation in graph.operations
        ),
        entries=entries,
        outputs=outputs,
        single_output=graph.single_output,
    )


def _inputs(graph: Graph, channels: Channels, driver: _Builder) -> tuple[Entry, ...]:
    """Have the driver write every input; returns where `execute` puts its arguments."""
    entries = []
    used = {use for node in graph.nodes for use in node.uses()}
    for node in graph.nodes:
        if isinstance(node.op, Input) and node.id in used:
            slot = driver.slot(node.id)
            entries.append(Entry(key=node.op.key, slot=slot))
            if node.id in channels.of_value:
                driver.steps.append(Write(channels.of_value[node.id], slot))
    if channels.trigger is not None:
        driver.steps.append(Write(channels.trigger, driver.extra_slot()))
    return tuple(entries)


def _units(graph: Graph, order: tuple[NodeId, ...]) -> Iterator[list[Node]]:
    """Yield the nodes in their order, the ranks of a collective together."""

    def unit(node: Node) -> tuple[str, int]:
        op = node.op
        return ("of", op.operation) if isinstance(op, Collective) else ("node", node.id)

    for _, nodes in groupby((graph.nodes[number] for number in order), unit):
        yield list(nodes)


def _met_readers(channels: Channels, value: NodeId) -> tuple[int, ...]:
    """Return who must be there when a value is written, the writer apart."""
    channel = channels.of_value.get(value)
    if channel is None or not channels.specs[channel].transport.is_rendezvous:
        return ()
    return channels.specs[channel].readers


def _last_uses(graph: Graph, order: tuple[NodeId, ...]) -> dict[ActorId, dict[NodeId, NodeId]]:
    """Return, per actor, the last of its nodes that needs each value."""
    last: dict[ActorId, dict[NodeId, NodeId]] = defaultdict(dict)
    for number in order:
        node = graph.nodes[number]
        last[node.actor][number] = number  # a value nobody uses here dies where it was made
        for use in node.uses():
            last[node.actor][use] = number
    return last


class _Builder:
    """One participant's steps and slots while they grow."""

    def __init__(self, graph: Graph, channels: Channels, participant: int) -> None:
        self._graph = graph
        self._channels = channels
        self.participant = participant
        self.steps: list[Step] = []
        self.slot_of: dict[NodeId, int] = {}
        self.anonymous = 0
        if channels.trigger is not None:
            spec = channels.specs[channels.trigger]
            if participant in spec.readers:
                slot = self.extra_slot()
                self.steps += [Read(channels.trigger, slot), Release((slot,))]

    def slot(self, value: NodeId) -> int:
        """Return the slot of a value, a new one the first time."""
        return self.slot_of.setdefault(value, len(self.slot_of) + self.anonymous)

    def extra_slot(self) -> int:
        """Return a slot for something that is no node's value."""
        self.anonymous += 1
        return len(self.slot_of) + self.anonymous - 1

    def work(self, node: Node) -> tuple[NodeId, ...]:
        """Append what makes a node's value; returns the values that exist from now on."""
        for use in node.uses():
            self.fetch(use)
        return self._work(node)

    def write(self, values: tuple[NodeId, ...]) -> None:
        """Send values to those who need them elsewhere."""
        for value in values:
            channel = self._channels.of_value.get(value)
            if channel is not None and self._channels.specs[channel].node == value:
                self.steps.append(Write(channel, *self._slots(channel)))

    def release(self, node: Node, made: tuple[NodeId, ...], last_use: dict[NodeId, NodeId]) -> None:
        """Forget what nobody needs after a node."""
        dead = [value for value in (*node.uses(), *made) if last_use.get(value) == node.id]
        if dead:
            slots = tuple(dict.fromkeys(self.slot(value) for value in dead))
            self.steps.append(Release(slots))

    def output(self, leaf: Val | Const) -> Tree:
        """Have the driver read one output; returns where the result is taken from."""
        if isinstance(leaf, Const):
            return leaf
        value = NodeId(leaf.id)
        if self._graph.nodes[value].actor != DRIVER:
            self.fetch(value)
        return Val(self.slot(value))

    def fetch(self, value: NodeId) -> None:
        """Read a value that comes from elsewhere, unless it is here."""
        if value not in self.slot_of:
            channel = self._channels.of_value[value]
            self.steps.append(Read(channel, *self._slots(channel)))

    def _slots(self, channel: int) -> tuple[int, tuple[int, ...]]:
        """Return the slots of a channel's values: of the first, and of those that go with it."""
        slot, *beside = map(self.slot, map(NodeId, self._channels.specs[channel].nodes))
        return slot, tuple(beside)

    def _work(self, node: Node) -> tuple[NodeId, ...]:
        """Append what makes the node's value; returns the values that exist from now on."""
        match node.op:
            case Call() as call:
                return self._compute(node, call)
            case Collective() as part:
                return self._collective(node, part)
            case Element():
                # Its slot was filled by its source; only now does the order say it may travel.
                pass
            case Input() | Output():
                msg = f"neither input nor output is work: {node}"
                raise AssertionError(msg)
        return (node.id,)

    def _compute(self, node: Node, call: Call) -> tuple[NodeId, ...]:
        arguments = call.arguments.map(
            lambda leaf: Val(self.slot(NodeId(leaf.id))) if isinstance(leaf, Val) else leaf
        )
        results, made = self._results(node)
        compute = Compute(
            node.id,
            call.method,
            arguments,
            results,
            unpack=call.num_returns != 1,
            cuda_graph=call.cuda_graph and not why_not_captured(self._graph, node),
        )
        self.steps.append(compute)
        return made

    def _collective(self, node: Node, part: Collective) -> tuple[NodeId, ...]:
        sources = tuple(self.slot(source) for source in part.sources)
        results, made = self._results(node)
        self.steps.append(CollectiveStart(part.operation, sources))
        self.steps.append(CollectiveWait(part.operation, results))
        return made

    def _results(self, node: Node) -> tuple[tuple[int, ...], tuple[NodeId, ...]]:
        """Return the slots of a node's values, and which values exist once they are filled."""
        if node.num_returns == 1:
            return (self.slot(node.id),), (node.id,)
        elements = {
            other.op.index: other.id
            for other in self._graph.nodes
            if isinstance(other.op, Element) and other.op.source == node.id
        }
        slots = tuple(
            self.slot(elements[index]) if index in elements else self.extra_slot()
            for index in range(node.num_returns)
        )
        self.slot(node.id)  # its elements need it, and shall not look for it elsewhere
        return slots, ()
