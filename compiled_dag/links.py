"""How every value gets from the node that makes it to each node that needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiled_dag.ir import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.ir import Graph
    from compiled_dag.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An edge of the graph."""

    source: int
    """The node that makes the value."""
    target: int
    """A node that needs it."""
    transport: str
    """``local``: handed on inside one process; ``shm``: through shared memory; or how a hint for
    an accelerator is kept (`compiled_dag.channel.transport`)."""
    why: str
    channel: int | None
    """The channel it travels in; None if it stays in its process."""
    accelerator: bool = False
    """Whether it was hinted for an accelerator."""


def links(graph: Graph, program: Program) -> Iterator[Link]:
    """Yield the edges of `graph`, in order of the nodes that need something."""
    channel_of = {node: spec for spec in program.channels for node in spec.nodes}
    labels = dict(zip(graph.actors, graph.labels, strict=True)) | {DRIVER: "driver"}
    for node in graph.nodes:
        for use in node.uses():
            maker = graph.nodes[use]
            if maker.actor == node.actor:
                why = f"both are on {labels[node.actor]}: the object itself is handed on"
                if node.actor == DRIVER:
                    why = "the driver has it: a copy is handed back"
                yield Link(source=use, target=node.id, transport="local", why=why, channel=None)
                continue
            spec = channel_of[use]
            why = f"{labels[maker.actor]} and {labels[node.actor]} are processes of one machine"
            if maker.hint is not None:
                why += f", and {spec.transport.reason}"
            yield Link(
                source=use,
                target=node.id,
                transport="shm" if spec.transport.mechanism == "host" else spec.transport.mechanism,
                why=why,
                channel=spec.index,
                accelerator=spec.transport.on_accelerator,
            )
