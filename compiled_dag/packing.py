"""What of a captured graph goes into each participant's package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.channel.transport import UNHINTED
from compiled_dag.ir import Element
from compiled_dag.outcome import Place
from compiled_dag.package import Package
from compiled_dag.program import Compute
from compiled_dag.tree import Const, leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.capture import Captured
    from compiled_dag.ir import NodeId
    from compiled_dag.options import CompileOptions
    from compiled_dag.program import Program


def places_of(captured: Captured) -> dict[NodeId, Place]:
    """Return what messages call each node that runs on an actor."""
    labels = dict(zip(captured.graph.actors, captured.graph.labels, strict=True))
    return {
        node.id: Place(
            method=node.label, actor=labels[node.actor], node=node.id, source=node.source
        )
        for node in captured.graph.nodes
        if node.actor in labels
    }


def constants_used(steps: Sequence[Any]) -> set[int]:
    """Return the constants that a participant's steps need."""
    return {
        leaf.id
        for step in steps
        if isinstance(step, Compute)
        for tree in step.arguments.trees()
        for leaf in leaves(tree)
        if isinstance(leaf, Const)
    }


def functions_used(
    steps: Sequence[Any], functions: Mapping[NodeId, Callable[..., Any]]
) -> dict[NodeId, Callable[..., Any]]:
    """Return what a participant's calls of functions run."""
    used = (step.node for step in steps if isinstance(step, Compute))
    return {node: functions[node] for node in used if node in functions}


def bind_indexes(captured: Captured, participant: int) -> dict[NodeId, int]:
    """Return of each node of a participant its place among those bound to its actor."""
    actor = captured.graph.actors[participant - 1]
    mine = [
        node
        for node in captured.graph.nodes
        if node.actor == actor and not isinstance(node.op, Element)
    ]
    mine.sort(key=lambda node: node.order)
    return {node.id: index for index, node in enumerate(mine)}


def pack(
    captured: Captured,
    program: Program,
    options: CompileOptions,
    places: Mapping[NodeId, Place],
    participant: int,
    **own: Any,
) -> Package:
    """Return a participant's package.

    Args:
        captured: The graph.
        program: What it was compiled to.
        options: What it was compiled with.
        places: Of all its nodes.
        participant: Whose package.
        own: What depends on the deployment: the other fields of `Package`.
    """
    steps = program.steps[participant]
    return Package(
        participant=participant,
        participants=program.participants,
        channels=program.channels,
        steps=steps,
        num_slots=program.slots[participant],
        functions=functions_used(steps, captured.functions),
        constants={number: captured.constants[number] for number in constants_used(steps)},
        places={s.node: places[s.node] for s in steps if isinstance(s, Compute)},
        slot_bytes=options.buffer_size_bytes,
        cap_bytes=options.max_memory_bytes,
        wait_slice_s=options.wait_slice_s,
        overlaps=options.overlap_gpu_communication,
        profiling=options.profiling,
        bind_indexes=bind_indexes(captured, participant),
        **own,
    )


def is_hinted(program: Program, participant: int) -> bool:
    """Tell whether tensors are expected at a participant."""
    return any(
        spec.transport != UNHINTED and participant in (spec.writer, *spec.readers)
        for spec in program.channels
    )
