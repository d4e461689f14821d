"""A trace as one HTML page: lanes, colours, zoom, percentiles. It loads nothing from anywhere."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import os

    from compiled_dag.trace.record import Lane, Trace

_TEMPLATE: Final = Path(__file__).with_name("page.html")
_PLACE: Final = "@DATA@"
_STATES: Final = {"ok": 0, "failed": 1, "running": 2}


def export(trace: Trace, filename: str | os.PathLike[str]) -> str:
    """Write the page; returns its path.

    Raises:
        OSError: The file cannot be written.
    """
    taken = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    Path(filename).write_text(render(trace, taken), encoding="utf-8")
    return str(filename)


def render(trace: Trace, taken: str) -> str:
    """Return the page's text.

    Args:
        trace: What it shows.
        taken: When that was taken, to be shown.
    """
    text = json.dumps(data_of(trace, taken), separators=(",", ":"), ensure_ascii=False)
    # Labels are the user's: none may end the element that the data is in.
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, text.replace("<", "\\u003c"))


def data_of(trace: Trace, taken: str) -> dict[str, Any]:
    """Return what the page's script reads: columns, which are small and quick to parse."""
    begins = [span.begin_ns for lane in trace.lanes for span in lane.spans[:1]]
    first_ns = min(begins, default=0)
    return {
        "graph": trace.graph,
        "taken": taken,
        "lanes": [_lane(lane, first_ns) for lane in trace.lanes],
    }


def _lane(lane: Lane, first_ns: int) -> dict[str, Any]:
    spans = lane.spans
    begins = [first_ns, *(span.begin_ns for span in spans)]
    return {
        "label": lane.label,
        "pid": lane.pid,
        "actor": lane.participant > 0,
        "operations": [
            {
                "kind": operation.kind,
                "name": operation.name,
                "node": operation.node,
                "source": operation.source,
                "channels": operation.channels,
            }
            for operation in lane.operations
        ],
        "operation": [span.operation for span in spans],
        "execution": [span.execution for span in spans],
        "begin": [after - before for before, after in pairwise(begins)],
        "wait": [span.arrived_ns - span.begin_ns for span in spans],
        "length": [span.end_ns - span.begin_ns for span in spans],
        "state": [_STATES[span.state] for span in spans],
    }
