"""What of a captured graph goes into each participant's package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.outcome import Place
from compiled_dag.program import Compute
from compiled_dag.tree import Const, leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.capture import Captured
    from compiled_dag.ir import NodeId


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
