"""Traces to look at: of a graph, and made by hand."""

from __future__ import annotations

from typing import Any

from compiled_dag.trace.record import Lane, Operation, Span, Trace
from compiled_dag.trace.snapshot import take


def trace_of(graph: Any) -> Trace:
    """Return the trace of a compiled graph as data."""
    return take(graph._deployment, graph._results.log)


def names(lane: Lane) -> list[str]:
    """Return what a lane did, in order."""
    return [lane.operations[span.operation].name for span in lane.spans]


def sample(executions: int = 2, readers: int = 2) -> Trace:
    """Return a trace in which the driver writes to all of some actors; each computes."""
    execute = Operation(kind="write", name="execute", channels=(0,))
    driver = [Span(0, n, 1000 * n, 1000 * n, 1000 * n + 50) for n in range(executions)]
    lanes = [Lane(participant=0, label="driver: execute", pid=10, operations=(execute,),
                  spans=tuple(driver))]  # fmt: skip
    for reader in range(1, readers + 1):
        operations = (
            Operation(kind="read", name="read input", step=1, channels=(0,)),
            Operation(kind="compute", name="Worker.f", step=2, node=reader, source="a.py:3"),
        )
        spans = []
        for n in range(executions):
            at = 1000 * n + 10 * reader
            spans.append(Span(0, n, at, at + 30, at + 60))
            spans.append(Span(1, n, at + 60, at + 60, at + 700, "ok" if n else "failed"))
        lanes.append(Lane(participant=reader, label=f"Worker({reader})", pid=10 + reader,
                          operations=operations, spans=tuple(spans)))  # fmt: skip
    return Trace(graph="1f", channels=("input",), lanes=tuple(lanes))
