"""Pass: which ends of values in host memory have their GPUs copy from it, or to it.

A value that was hinted and travels in host memory may come from a GPU or be for one: so the hint's
``device``, and where the ends are, say. Such an end pins the memory that the value is in, and its
GPU copies it straight from there or to there. That it can has been tried (`ir.Pinning`); where it
cannot torch copies, by way of memory that is not shared.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from compiled_dag.plan import Transports, remote_readers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.host import ActorId
    from compiled_dag.ir import Graph, Node


def copying_actors(graph: Graph, transports: Transports) -> tuple[ActorId, ...]:
    """Return the actors whose GPUs would copy from host memory, or to it, if they can."""
    return tuple(dict.fromkeys(actor for *_, actor in _ends(graph, transports)))


def resolve_copies(graph: Graph, transports: Transports) -> Transports:
    """Return `transports` with the ends whose GPUs copy, as far as that was tried."""
    number_of = {actor: number for number, actor in enumerate(graph.actors, 1)}
    label_of = dict(zip(graph.actors, graph.labels, strict=True))
    refused = {one.actor: one.refused for one in graph.pinning}
    found = dict(transports.of_value)
    for node, is_writer, actor in _ends(graph, transports):
        if actor not in refused:
            continue
        way = "from its GPU into pinned memory" if is_writer else "from pinned memory to its GPU"
        text = f"{label_of[actor]} copies {way}"
        added: tuple[int, ...] = (number_of[actor],)
        if refused[actor]:
            text = f"torch copies for {label_of[actor]}, which failed at {refused[actor]}"
            added = ()
        transport = found[node.id]
        found[node.id] = dataclasses.replace(
            transport,
            copying=transport.copying + added,
            reason=f"{transport.reason}; {text}",
        )
    return dataclasses.replace(transports, of_value=found)


def _ends(graph: Graph, transports: Transports) -> Iterator[tuple[Node, bool, ActorId]]:
    """Yield the ends that have a use for a GPU: value, whether it is its writer, actor."""
    with_gpu = {
        actor for actor, gpus in zip(graph.actors, graph.gpus, strict=False) if gpus.physical
    }
    readers = remote_readers(graph)
    for value, transport in transports.of_value.items():
        node = graph.nodes[value]
        if node.hint is None or transport.mechanism != "host":
            continue
        if node.actor in with_gpu:
            yield node, True, node.actor
        if transport.device != "cpu":
            for reader in sorted(readers[value] & with_gpu):
                yield node, False, reader
