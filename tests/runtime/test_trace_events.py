"""The timeline: trace events of what ran when."""

from __future__ import annotations

import json

import pytest

import runtime
from runtime import ids
from runtime.exceptions import ActorDiedError
from runtime.spans import Span
from runtime.trace_events import Trace, events_of, in_rows
from tests.runtime.actors import Worker

proc = pytest.mark.proc


@runtime.remote
def double(value):
    return 2 * value


@runtime.remote
def ask():
    return runtime.timeline()


@runtime.remote
class Gate:
    """Lets two calls meet, so that they are known to overlap."""

    def __init__(self):
        import asyncio

        self.both = asyncio.Event()
        self.count = 0

    async def meet(self):
        self.count += 1
        if self.count == 2:
            self.both.set()
        await self.both.wait()


def span(start, end, method=b"work", number=1):
    return Span(number, method, start, end)


def test_what_overlaps_is_in_rows_of_its_own():
    spans = [span(0, 10), span(5, 20), span(10, 12), span(15, 16), span(30, 31)]
    assert [row for _, row in in_rows(reversed(spans))] == [0, 1, 0, 0, 0]
    assert [row for _, row in in_rows([span(0, 9), span(1, 2), span(1, 9), span(3, 4)])] == [
        0,
        1,
        2,
        1,
    ]


def test_events_are_what_trace_viewers_read():
    task = b"\0\0" + bytes(8) + (7).to_bytes(8, "little") + b"double"
    trace = Trace(99, "A(3)", 3, "A", [span(5000, 8000, b"work\0io", 4), span(1000, 2000, task)])
    name, first, second = events_of([trace])
    assert name["args"] == {"name": "A(3)"}
    assert (first["name"], first["cat"], first["ts"], first["dur"]) == ("double", "task", 1.0, 1.0)
    assert first["args"] == {"task_id": ids.task(7)}
    assert (second["name"], second["cat"], second["pid"]) == ("A.work", "actor_call", 99)
    assert second["args"] == {"task_id": ids.call(4, 3)}
    json.dumps([name, first, second])


@proc
def test_tasks_and_calls_are_recorded(session, tmp_path):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    ref = double.remote(1)
    runtime.get([ref, worker.echo.remote(1)])
    events = runtime.timeline()
    ran = {event["name"]: event for event in events if event["ph"] == "X"}
    assert set(ran) == {"double", "Worker.__init__", "Worker.pid", "Worker.echo"}
    assert ran["Worker.echo"]["pid"] == ran["Worker.pid"]["pid"] == pid
    assert ran["Worker.pid"]["ts"] + ran["Worker.pid"]["dur"] <= ran["Worker.echo"]["ts"]
    assert ran["double"]["args"]["task_id"].endswith(ref.hex())
    assert {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": "Worker(1)"}} in events
    path = tmp_path / "trace.json"
    assert runtime.timeline(path) is None
    assert json.loads(path.read_text()) == events


@proc
def test_calls_at_once_are_recorded_side_by_side(session):
    gate = Gate.remote()
    runtime.get([gate.meet.remote(), gate.meet.remote()])
    rows = [event["tid"] for event in runtime.timeline() if event["name"] == "Gate.meet"]
    assert sorted(rows) == [0, 1]


@proc
def test_what_an_ended_actor_ran_is_kept(session):
    worker = Worker.remote()
    runtime.get(worker.pid.remote())
    worker.__ray_terminate__.remote()
    with pytest.raises(ActorDiedError):
        runtime.get(worker.echo.remote(1))
    assert "Worker.pid" in [event["name"] for event in runtime.timeline()]


@proc
def test_it_is_for_the_driver(session):
    with pytest.raises(RuntimeError, match="in the driver"):
        runtime.get(ask.remote())
