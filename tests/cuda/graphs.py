"""Graphs of `tests.cuda.crew`, and how to look at them."""

from __future__ import annotations

import pytest

import runtime
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode
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


def on_gpus(node):
    """Hint a value to stay on GPUs."""
    return node.with_tensor_transport("accelerator")


def after_a_death(stages, victim, hinted=on_gpus):
    """Have one stage of three die while many executions are under way; return the others."""
    with InputNode() as inp:
        value = stages[0].work.bind(inp[0], dies=inp[1] if not victim else False)
        for number, stage in enumerate(stages[1:], 1):
            value = stage.work.bind(hinted(value), dies=inp[1] if number == victim else False)
        output = stages[0].show.bind(hinted(value))
    graph = output.experimental_compile()
    refs = [graph.execute(n, n == 3) for n in range(8)]
    for ref in refs[4:]:
        with pytest.raises(GraphActorDiedError, match=r"in Stage\.work .* of execution 3"):
            ref.get(timeout=LONG_S)
    graph.teardown()
    return [stage for number, stage in enumerate(stages) if number != victim]
