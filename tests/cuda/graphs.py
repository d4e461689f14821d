"""Graphs of `tests.cuda.crew`, and how to look at them."""

from __future__ import annotations

import runtime
from compiled_dag import InputNode, MultiOutputNode
from tests.live import LONG_S


def hop(writer, *readers, method="make", then="show"):
    """Draw one value on its way from a GPU to others."""
    with InputNode() as inp:
        value = getattr(writer, method).bind(inp).with_tensor_transport("accelerator")
        return MultiOutputNode([getattr(reader, then).bind(value) for reader in readers])


def edges(graph):
    return {(edge.source_name, edge.target_name): edge for edge in graph.explain().edges}


def get(refs):
    return runtime.get(refs, timeout=LONG_S)
