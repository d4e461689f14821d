"""Trace events: the form that the viewers ask for."""

from __future__ import annotations

import json

import pytest

from compiled_dag.trace.perfetto import events_of
from tests.compiled_dag.trace.traces import sample
from tests.gates import compiled


def check_form(events: list) -> None:
    """Check what the format demands of every event, and that slices of a row do not overlap."""
    ends: dict[tuple[int, int], float] = {}
    for event in events:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        match event["ph"]:
            case "X":
                assert event["dur"] >= 0
                row = event["pid"], event["tid"]
                if event["cat"] != "wait":
                    assert event["ts"] >= ends.get(row, 0) - 1e-3
                    ends[row] = event["ts"] + event["dur"]
            case "M":
                assert event["args"]["name"]
            case phase:
                assert phase in {"s", "f"}
                assert event["id"]
    flows = [event for event in events if event["ph"] in "sf"]
    begun = {event["id"]: event for event in flows if event["ph"] == "s"}
    ended = {event["id"]: event for event in flows if event["ph"] == "f"}
    assert begun.keys() == ended.keys()
    assert len(begun) + len(ended) == len(flows), "two arrows have one id"
    for key, event in ended.items():
        assert event["bp"] == "e"
        assert begun[key]["ts"] < event["ts"], "an arrow goes back in time"
        for end in (event, begun[key]):
            assert in_a_slice(events, end), f"{end} is in no slice"


def in_a_slice(events: list, end: dict) -> bool:
    row = end["pid"], end["tid"]
    return any(
        event["ph"] == "X"
        and (event["pid"], event["tid"]) == row
        and event["ts"] <= end["ts"] <= event["ts"] + event["dur"]
        for event in events
    )


def test_events_have_the_form_of_the_format() -> None:
    check_form(events_of(sample()))


def test_a_process_is_an_actor_and_a_category_a_kind() -> None:
    events = events_of(sample(executions=2, readers=2))
    named = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert named == {10: "driver", 11: "Worker(1)", 12: "Worker(2)"}
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert rows == {31_000: "graph 1f execute", 31_001: "graph 1f", 31_002: "graph 1f"}
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["cat"] for event in spans} == {"read", "wait", "compute", "write"}
    assert [event["ts"] for event in spans] == sorted(event["ts"] for event in spans)


def test_arguments_say_execution_node_line_and_state() -> None:
    of_actor = [event for event in events_of(sample()) if event["pid"] == 12]
    first, second = [event for event in of_actor if event["name"] == "Worker.f"]
    assert first["args"] == {
        "execution": 0, "node": 2, "bound": "a.py:3", "step": 2, "state": "failed",
    }  # fmt: skip
    assert "state" not in second["args"]
    assert (second["ts"], second["dur"]) == (1.08, 0.64)


def test_a_wait_is_a_slice_within_its_read() -> None:
    of_actor = [event for event in events_of(sample(1, 1)) if event["pid"] == 11]
    read, wait = [event for event in of_actor if event.get("cat") in {"read", "wait"}]
    assert (read["cat"], wait["cat"]) == ("read", "wait")
    assert read["ts"] == wait["ts"]
    assert 0 < wait["dur"] < read["dur"]


def test_every_reader_of_a_message_gets_an_arrow() -> None:
    flows = [event for event in events_of(sample(3, 4)) if event["ph"] == "f"]
    assert len(flows) == 3 * 4
    assert {event["name"] for event in flows} == {"input"}


def test_a_graph_exports_while_up_and_after_teardown(host, tmp_path) -> None:
    with compiled(host) as graph:
        for number in range(5):
            graph.execute(number).get(30)
        check_form(graph.trace())
    events = graph.trace(tmp_path / "trace.json")
    check_form(events)
    assert json.loads((tmp_path / "trace.json").read_text()) == events
    assert sum(event["ph"] == "f" for event in events) == 10
    with pytest.raises(OSError, match="no folder"):
        graph.trace(tmp_path / "no folder" / "trace.json")
