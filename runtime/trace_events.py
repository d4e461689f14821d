"""`runtime.timeline()`: what ran when, for a trace viewer."""

from __future__ import annotations

import heapq
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from compiled_dag.errors import ActorError
from compiled_dag.keywords import strict_keywords
from runtime import context, ids, lifecycle, spans

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from runtime.session import Session

_PATIENCE_S: Final = 1.0
"""For processes that are in a call, which answer when that has ended."""


class Trace(NamedTuple):
    """What one process has run."""

    pid: int
    label: str
    actor_id: int
    class_name: str
    spans: list[spans.Span]


@strict_keywords
def timeline(filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]] | None:
    """Return what ran when, as trace events for chrome://tracing or ui.perfetto.dev.

    Recorded are tasks and calls of actors that have ended, with name, start, duration and process:
    the last 10,000 of each process. Steps of compiled graphs are not, nor what a process ran that
    was killed. One that is in the middle of a call for more than a second is left out.

    Args:
        filename: Write them there as JSON, and return None.

    Raises:
        RuntimeError: This is not the driver.
        OSError: The file cannot be written.
    """
    if context.in_actor():
        raise RuntimeError(f"timeline() in {context.label()}: call it in the driver")
    session = lifecycle.current()
    events = events_of(_collect(session))
    if filename is None:
        return events
    Path(filename).write_text(json.dumps(events))
    return None


def _collect(session: Session) -> list[Trace]:
    deadline = time.monotonic() + _PATIENCE_S
    asked = [
        (process, process.pid, session.submit(process.actor_id, spans.collect, b""))
        for process in session.processes
        if process.pid and process.death is None
    ]
    for process, pid, call in asked:
        with suppress(TimeoutError, ActorError):  # busy, or dead meanwhile
            session.traces.take(process.actor_id, pid, call.result(deadline))
    made = []
    for pid, (actor_id, data) in session.traces.items():
        process = session.actor(actor_id)
        trace = Trace(pid, process.label, actor_id, process.class_name, spans.decode(data))
        made.append(trace)
    return made


def events_of(traces: Iterable[Trace]) -> list[dict[str, Any]]:
    """Return trace events: the names of the processes, then what they ran."""
    names: list[dict[str, Any]] = []
    ran: list[dict[str, Any]] = []
    for trace in traces:
        names.append(
            {"ph": "M", "name": "process_name", "pid": trace.pid, "args": {"name": trace.label}}
        )
        ran += [_event(trace, span, row) for span, row in in_rows(trace.spans)]
    return names + sorted(ran, key=lambda event: float(event["ts"]))


def _event(trace: Trace, span: spans.Span, row: int) -> dict[str, Any]:
    is_task = spans.is_task(span.method)
    if is_task:
        task_id = ids.task(spans.task_number(span.method))
    else:
        task_id = ids.call(span.number, trace.actor_id)
    return {
        "ph": "X",
        "cat": "task" if is_task else "actor_call",
        "name": spans.name_of(span.method, trace.class_name),
        "pid": trace.pid,
        "tid": row,
        "ts": span.start_ns / 1000,
        "dur": (span.end_ns - span.start_ns) / 1000,
        "args": {"task_id": task_id},
    }


def in_rows(spans_: Iterable[spans.Span]) -> list[tuple[spans.Span, int]]:
    """Give each span the first row in which nothing else runs at the time."""
    placed = []
    busy: list[tuple[int, int]] = []
    """End and number of each row in use."""
    free: list[int] = []
    for span in sorted(spans_, key=lambda span: span.start_ns):
        while busy and busy[0][0] <= span.start_ns:
            heapq.heappush(free, heapq.heappop(busy)[1])
        row = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (span.end_ns, row))
        placed.append((span, row))
    return placed
