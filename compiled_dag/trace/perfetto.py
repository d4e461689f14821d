"""A trace as trace events, for ui.perfetto.dev and chrome://tracing.

The vocabulary is that of `runtime.timeline()`, and so are the process ids and the clock: events of
both can be put into one list. A process is an actor (or the driver); each graph has a row of its
own in it, the driver two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from compiled_dag.trace.record import Lane, Span, Trace

Event: TypeAlias = dict[str, Any]

_ROWS: Final = 1000
"""Rows of a process that a graph may use; those below are of tasks and calls."""
_GRAPHS: Final = 1_000_003
"""Numbers of rows have to fit 31 bits; a graph's number tells its driver too."""


def events_of(trace: Trace) -> list[Event]:
    """Return the events: names, then spans in order of time, then an arrow for every message."""
    names: list[Event] = []
    spans: list[Event] = []
    rows = _rows(trace)
    for lane, row in zip(trace.lanes, rows, strict=True):
        names += _names(trace, lane, row)
        for span in lane.spans:
            spans += _span(lane, span, row)
    return names + sorted(spans, key=lambda event: float(event["ts"])) + _arrows(trace, rows)


def export(trace: Trace, filename: str | os.PathLike[str] | None) -> list[Event]:
    """Return the events; written to `filename` too, as JSON, if one is given.

    Raises:
        OSError: The file cannot be written.
    """
    events = events_of(trace)
    if filename is not None:
        import json  # noqa: PLC0415  most programs never export

        Path(filename).write_text(json.dumps(events), encoding="utf-8")
    return events


def _rows(trace: Trace) -> list[int]:
    """Return the thread number of each lane; unique also where actors share a process."""
    first = int(trace.graph, 16) % _GRAPHS * _ROWS
    return [first + number for number in range(len(trace.lanes))]


def _names(trace: Trace, lane: Lane, row: int) -> list[Event]:
    process, _, side = lane.label.partition(": ")
    thread = f"graph {trace.graph} {side}".rstrip()
    return [
        {"ph": "M", "name": "process_name", "pid": lane.pid, "args": {"name": process}},
        {"ph": "M", "name": "thread_name", "pid": lane.pid, "tid": row, "args": {"name": thread}},
    ]


def _span(lane: Lane, span: Span, row: int) -> Iterable[Event]:
    operation = lane.operations[span.operation]
    details: Event = {"execution": span.execution}
    if operation.node is not None:
        details["node"] = operation.node
    if operation.source:
        details["bound"] = operation.source
    if operation.step is not None:
        details["step"] = operation.step
    if span.state != "ok":
        details["state"] = span.state
    event = _slice(lane, row, operation.kind, operation.name, span.begin_ns, span.end_ns)
    yield event | {"args": details}
    if span.arrived_ns > span.begin_ns:
        yield _slice(lane, row, "wait", "wait", span.begin_ns, span.arrived_ns)


def _slice(lane: Lane, row: int, kind: str, name: str, begin_ns: int, end_ns: int) -> Event:
    begin_ns = min(begin_ns, end_ns - 1)  # an arrow ends in something that lasts
    return {
        "ph": "X",
        "cat": kind,
        "name": name,
        "pid": lane.pid,
        "tid": row,
        "ts": begin_ns / 1000,
        "dur": (end_ns - begin_ns) / 1000,
    }


def _arrows(trace: Trace, rows: list[int]) -> list[Event]:
    """Return a flow from each write to every read of the same message, where both are known."""
    written: dict[tuple[int, int], Event] = {}
    for lane, row in zip(trace.lanes, rows, strict=True):
        for channel, span in _messages(lane, "write"):
            # At its begin: a reader may be done before the writer has noted that it is.
            first_ns = min(span.begin_ns, span.end_ns - 1)
            where = {"pid": lane.pid, "tid": row, "ts": first_ns / 1000}
            written[channel, span.execution] = where
    arrows: list[Event] = []
    for lane, row in zip(trace.lanes, rows, strict=True):
        for channel, span in _messages(lane, "read"):
            start = written.get((channel, span.execution))
            if start is not None:
                end = {"pid": lane.pid, "tid": row, "ts": (span.end_ns - 1) / 1000}
                name = trace.channels[channel]
                key = f"{trace.graph}.{channel}.{span.execution}.{row}"
                both = {"cat": "channel", "name": name, "id": key}
                arrows += [{"ph": "s", **both, **start}, {"ph": "f", "bp": "e", **both, **end}]
    return arrows


def _messages(lane: Lane, kind: str) -> Iterable[tuple[int, Span]]:
    for span in lane.spans:
        operation = lane.operations[span.operation]
        if operation.kind == kind and span.state != "running":
            for channel in operation.channels:
                yield channel, span
