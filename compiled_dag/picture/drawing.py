"""What is to be drawn, whatever draws it: vertices and arrows, with their texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from compiled_dag.ir import Call, Collective, Element, Input, Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compiled_dag.ir import Graph, Node, OperationId
    from compiled_dag.links import Link

Kind: TypeAlias = Literal["input", "output", "call", "element", "collective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """One node."""

    number: int
    kind: Kind
    what: str
    """Kind, or actor and method, in a line."""
    short: str
    """The same for pictures made of characters."""
    actor: str = ""
    """Label of its actor; empty on the driver."""
    lines: tuple[str, ...] = ()
    """What stands in its box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A value that one node makes and another needs."""

    source: int
    target: int
    accelerator: bool = False
    note: str = ""
    """How it travels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A whole graph; vertex i is node i."""

    vertices: tuple[Vertex, ...]
    arrows: tuple[Arrow, ...]
    fields: tuple[Arrow, ...]
    """From the input to the arguments taken from it: structure, nothing travels."""

    @property
    def actors(self) -> tuple[str, ...]:
        """Labels, in order of first use."""
        return tuple(dict.fromkeys(v.actor for v in self.vertices if v.actor))


def drawing_of(graph: Graph, links: Iterable[Link]) -> Drawing:
    """Return what there is to draw of a compiled graph."""
    labels = dict(zip(graph.actors, graph.labels, strict=True))
    texts = {operation.id: operation.text for operation in graph.operations}
    whole = [node.id for node in graph.nodes if node.op == Input()]
    fields = [node for node in graph.nodes if isinstance(node.op, Input) and node.op != Input()]
    return Drawing(
        vertices=tuple(_vertex(node, labels.get(node.actor, ""), texts) for node in graph.nodes),
        arrows=tuple(
            Arrow(
                source=link.source,
                target=link.target,
                accelerator=link.accelerator,
                note=link.transport
                if link.channel is None
                else f"{link.transport}, channel {link.channel}",
            )
            for link in links
        ),
        fields=tuple(Arrow(source=one, target=field.id) for one in whole for field in fields),
    )


def _vertex(node: Node, actor: str, texts: dict[OperationId, str]) -> Vertex:
    kind, what, short = _texts(node, actor, texts)
    lines = what.replace(" Method: ", "\nMethod: ").split("\n")
    return Vertex(
        number=node.id,
        kind=kind,
        what=what,
        short=f"{node.id}:{short}",
        actor=actor,
        lines=(f"Task {node.id}", *lines),
    )


def _texts(node: Node, actor: str, texts: dict[OperationId, str]) -> tuple[Kind, str, str]:
    """Return kind, long and short text."""
    match node.op:
        case Input(key=None):
            return "input", "InputNode", "InputNode"
        case Input(key=key):
            name = repr(key).strip("'")
            return "input", f"InputAttributeNode[{name}]", f"input[{key!r}]"
        case Output():
            return "output", "MultiOutputNode", "MultiOutputNode"
        case Element(index=index):
            return "element", f"ClassMethodOutputNode[{index}]", f"Output[{index}]"
        case Call(method=method):
            return "call", f"Actor: {actor} Method: {method}", f"{actor}.{method}"
        case Collective(operation=operation, rank=rank):
            text = texts[operation]
            long = f"Actor: {actor} Method: {text}, rank {rank}"
            return "collective", long, f"{actor}.{text}"
