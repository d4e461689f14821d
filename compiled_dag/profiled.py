"""What the environment asks to be recorded of an actor's steps: bound once, free when off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.ir import NodeId
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Read,
    Release,
    Step,
    Write,
)
from compiled_dag.trace.records import Subject, events_of, recorded
from compiled_dag.trace.torch_profilers import ranged, start_profiler, stop_profiler

if TYPE_CHECKING:
    from compiled_dag.compute import Run
    from compiled_dag.host import ActorContext
    from compiled_dag.ir import OperationId
    from compiled_dag.package import Package


def start(context: ActorContext, package: Package, runs: list[Run]) -> list[Run]:
    """Return the closures of a program's steps with what is asked for around them.

    Raises:
        GraphError: The actor's object takes no records.
        ImportError: torch's profiler is asked for and torch is not installed.
    """
    profiling = package.profiling
    if profiling.nvtx:
        runs = ranged(runs, [_name(package, step) for step in package.steps], context.label)
    if profiling.records:
        nodes = {number: _node(package, number) for number in package.parts}
        subjects = _subjects(context, package)
        events = events_of(context.instance)
        runs = recorded(package.steps, runs, subjects, nodes, events)
    if profiling.torch:
        start_profiler(context)
    return runs


def stop(context: ActorContext, package: Package) -> None:
    """End what lasts longer than a step."""
    if package.profiling.torch:
        stop_profiler(context)


def _subjects(context: ActorContext, package: Package) -> dict[NodeId, Subject]:
    names = {node: place.method.rpartition(".")[2] for node, place in package.places.items()}
    names |= {_node(package, number): str(part.op) for number, part in package.parts.items()}
    actor_name, actor_id = context.identity()
    class_name = type(context.instance).__name__
    return {
        node: Subject(
            actor_classname=class_name,
            actor_name=actor_name,
            actor_id=actor_id,
            method_name=name,
            bind_index=package.bind_indexes[node],
        )
        for node, name in names.items()
    }


def _node(package: Package, operation: OperationId) -> NodeId:
    """Return this rank's node of a collective operation."""
    part = package.parts[operation]
    number = part.places[part.rank].node
    assert number is not None, "places of a graph's nodes have their numbers"
    return NodeId(number)


def _name(package: Package, step: Step) -> str | None:
    match step:
        case Read(channel=channel):
            return f"read {package.channels[channel].label}"
        case Write(channel=channel):
            return f"write {package.channels[channel].label}"
        case Compute(node=node):
            return package.places[node].method
        case CollectiveStart(operation=operation):
            return f"{package.parts[operation].op} start"
        case CollectiveWait(operation=operation):
            return f"{package.parts[operation].op} wait"
        case Release():
            return None
