from __future__ import annotations

import re

import pytest

from compiled_dag import DAGContext
from compiled_dag.picture.schedule_dot import schedule_dot
from tests.compiled_dag import goldens
from tests.graphs import Worker, chain


@pytest.mark.parametrize("name", goldens.SCHEDULED)
def test_every_operation_is_a_box_in_its_actors_frame(name) -> None:
    schedule = goldens.schedule(name)
    text = schedule_dot(schedule)
    frames = re.findall(r'subgraph cluster_\d+ \{\n +label="([^"]+)"(.*?)\n  \}', text, re.DOTALL)
    assert [frame for frame, _ in frames] == [label for label, _ in schedule.lanes]
    for (_, body), (_, ops) in zip(frames, schedule.lanes, strict=True):
        assert re.findall(r'label="\[(\d+)\]', body) == [str(op.node) for op in ops]
        assert body.count("style=dashed") == len(ops) - 1
    reads = sum(op.kind == "READ" for _, ops in schedule.lanes for op in ops)
    assert text.count('[label="channel ') == reads


def test_the_schedule_is_drawn_at_compile_if_asked_for(
    host,
    graphviz,
    monkeypatch,
    tmp_path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DAGContext, "_current", None)
    monkeypatch.setenv("COMPILED_DAG_VISUALIZE_SCHEDULE", "1")
    output = chain([host.actor(Worker(1))])
    with output.experimental_compile() as graph:
        text = schedule_dot(graph.schedule)
    assert (tmp_path / "compiled_graph_schedule").read_text() == text
    assert (tmp_path / "compiled_graph_schedule.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_not_drawn_otherwise(host, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DAGContext, "_current", None)
    monkeypatch.setenv("COMPILED_DAG_VISUALIZE_SCHEDULE", "0")
    with chain([host.actor(Worker(1))]).experimental_compile():
        assert not list(tmp_path.iterdir())
