"""How everything in a graph travels, and why: plain data that reads as a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiled_dag.channel import layout as at
from compiled_dag.ir import is_captured
from compiled_dag.links import links
from compiled_dag.plan import why_not_captured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compiled_dag.capture import Captured
    from compiled_dag.ir import OperationId
    from compiled_dag.memory import ChannelMemory, GraphMemory
    from compiled_dag.operation import CollectiveOp
    from compiled_dag.program import OperationSpec, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One value on its way from the node that makes it to one that needs it."""

    source: int
    """Node number."""
    target: int
    source_name: str
    target_name: str
    transport: str
    """``local``: handed on inside one process; ``shm``: through shared memory; or how a hint for
    an accelerator is kept (`compiled_dag.channel.transport`)."""
    why: str
    channel: ChannelMemory | None
    """The channel it travels in, and its memory; None if it stays in its process."""

    def __str__(self) -> str:
        ends = f"{self.source} {self.source_name} -> {self.target} {self.target_name}"
        lines = [f"{ends}: {self.transport}, since {self.why}"]
        if self.channel is not None:
            slots = _slots(self.channel, self.transport)
            lines.append(f"    channel {self.channel.channel}: {slots}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One collective operation."""

    name: str
    nodes: tuple[int, ...]
    """By rank."""
    actors: tuple[str, ...]
    """By rank."""
    backend: str
    why: str
    advice: str
    """What would serve better; empty if nothing would."""

    def __str__(self) -> str:
        ranks = ", ".join(
            f"{node} on {actor}" for node, actor in zip(self.nodes, self.actors, strict=True)
        )
        text = f"{self.name} (nodes {ranks}): {self.backend}, since {self.why}"
        return f"{text}\n    {self.advice}" if self.advice else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process of the graph's own that runs calls of functions, one after the other."""

    name: str
    calls: tuple[tuple[int, str], ...]
    """Node number and function."""

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(f'{node} {name}' for node, name in self.calls)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaGraph:
    """A method that was to be recorded, with ``.options(cuda_graph=True)``."""

    node: int
    name: str
    actor: str
    why_not: str
    """Why it is not; empty if it is."""

    def __str__(self) -> str:
        how = f"as it is, since {self.why_not}" if self.why_not else "recorded once, then played"
        return f"{self.node} {self.name} on {self.actor}: {how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Transports of edges, backends of collectives, who runs what, how; `str` is a report."""

    edges: tuple[Edge, ...]
    collectives: tuple[Collective, ...]
    workers: tuple[Worker, ...]
    """Calls of functions by the worker they were given to."""
    cuda_graphs: tuple[CudaGraph, ...]

    def __str__(self) -> str:
        lines = ["Edges:", *(f"  {_indented(edge)}" for edge in self.edges)]
        if self.collectives:
            lines += ["Collectives:", *(f"  {_indented(one)}" for one in self.collectives)]
        if self.workers:
            lines += ["Workers for functions:", *(f"  {one}" for one in self.workers)]
        if self.cuda_graphs:
            lines += ["CUDA graphs:", *(f"  {one}" for one in self.cuda_graphs)]
        return "\n".join(lines)


def explain(
    captured: Captured,
    program: Program,
    memory: GraphMemory,
    settled: Mapping[OperationId, tuple[str, str]],
) -> Explanation:
    """Explain a graph.

    Args:
        captured: What it was compiled from.
        program: The program.
        memory: What its channels take.
        settled: Backends of operations that do not run on what was chosen for them, and why.
    """
    nodes = captured.graph.nodes
    return Explanation(
        edges=tuple(
            Edge(
                source=link.source,
                target=link.target,
                source_name=nodes[link.source].label,
                target_name=nodes[link.target].label,
                transport=link.transport,
                why=link.why,
                channel=None if link.channel is None else memory.channels[link.channel],
            )
            for link in links(captured.graph, program)
        ),
        collectives=tuple(
            _collective(captured, program, spec, op, settled.get(spec.id))
            for spec, op in zip(program.operations, captured.operations, strict=True)
        ),
        workers=tuple(_workers(captured)),
        cuda_graphs=tuple(_cuda_graphs(captured)),
    )


def _cuda_graphs(captured: Captured) -> Iterator[CudaGraph]:
    graph = captured.graph
    labels = dict(zip(graph.actors, graph.labels, strict=True))
    for node in filter(is_captured, graph.nodes):
        why_not = why_not_captured(graph, node)
        actor = labels[node.actor]
        yield CudaGraph(node=node.id, name=node.label, actor=actor, why_not=why_not)


def _workers(captured: Captured) -> Iterator[Worker]:
    graph = captured.graph
    for actor, label in zip(graph.actors, graph.labels, strict=True):
        calls = [n for n in graph.nodes if n.actor == actor and n.id in captured.functions]
        if calls:
            yield Worker(name=label, calls=tuple((node.id, node.label) for node in calls))


def _collective(
    captured: Captured,
    program: Program,
    spec: OperationSpec,
    op: CollectiveOp,
    settled: tuple[str, str] | None,
) -> Collective:
    actors = [captured.actors[member - 1] for member in spec.members]
    backend, why, advice = op.backend(actors), op.why(actors), op.advice(actors)
    if settled is not None:
        why = f"{why}, and {backend} was refused: {settled[1]}"
        backend = settled[0]
    if spec.communicator is not None:
        backend = captured.graph.communicators[spec.communicator].transport
        why, advice = "a communicator of the user's was given", ""
    return Collective(
        name=spec.text,
        nodes=spec.nodes,
        actors=tuple(program.participants[member] for member in spec.members),
        backend=backend,
        why=why,
        advice=advice,
    )


def _indented(part: Edge | Collective) -> str:
    return str(part).replace("\n", "\n  ")


def _slots(channel: ChannelMemory, transport: str) -> str:
    inline = f"{channel.inline_bytes // at.SLOT} slots for values up to {at.INLINE} bytes"
    if channel.ring_bytes:
        what = "two buffers to send tensors from" if transport == "nccl" else "a ring for tensors"
        inline = f"{what}, {channel.ring_bytes} bytes, {inline}"
    if not channel.slots:
        return f"{inline}, none for larger ones so far"
    return (
        f"{inline}, {channel.slots} of {channel.slot_bytes} bytes, "
        f"{channel.reserved_bytes} bytes reserved"
    )
