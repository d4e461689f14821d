from __future__ import annotations

import pytest

from compiled_dag import ChannelClosedError, MemoryCapError
from compiled_dag.channel import layout as at
from compiled_dag.channel.graph_segment import GraphSegment
from compiled_dag.shm import segment as segments


def test_a_new_segment_is_open(wire) -> None:
    graph = wire().graph
    assert graph.state == at.OPEN
    graph.guard()


@pytest.mark.parametrize(
    ("state", "text"), [(at.CLOSED, "the graph is torn down"), (at.BROKEN, "the graph is broken")]
)
def test_an_end_is_seen_by_everybody(wire, state, text) -> None:
    one = wire(readers=2)
    one.graph.end(state)
    for graph in (one.graph, *(reader.graph for reader in one.readers)):
        assert graph.state == state
        with pytest.raises(ChannelClosedError, match=f"^{text}$"):
            graph.guard()


def test_the_first_end_stays(wire) -> None:
    graph = wire().graph
    graph.end(at.BROKEN)
    graph.end(at.CLOSED)
    assert graph.state == at.BROKEN


def test_an_end_rings_everybody_who_sleeps(wire) -> None:
    one = wire(readers=2)
    bells, board = one.board.bells, one.board
    for process in range(3):
        bells[board.bell_index(process)] = 1
    one.graph.end(at.CLOSED)
    assert [bells[board.bell_index(process)] for process in range(3)] == [0, 0, 0]


def test_progress_is_what_the_participant_wrote(wire) -> None:
    graph = wire().graph
    line = graph.layout.participant(1) // 8
    assert graph.progress(1) == (0, 0, 0.0)
    graph.words[line + at.EXECUTION] = 12
    graph.words[line + at.STEP] = 3
    graph.words[line + at.SINCE_NS] = 1
    progress = graph.progress(1)
    assert (progress.execution, progress.step) == (12, 3)
    assert progress.for_s > 0


def test_descriptors_and_inline_space_are_faulted_in_at_once(wire) -> None:
    one = wire(readers=1, depth=8)
    control = one.graph.layout.control_bytes
    assert one.memory() in (control, at.SLOT)  # one page only: a kernel older than 5.14


def test_memory_that_is_not_there_is_refused_before_it_is_touched(wire, monkeypatch) -> None:
    spec = wire().spec
    monkeypatch.setattr(segments, "available_bytes", lambda: 100)
    with pytest.raises(MemoryCapError, match=r"^a graph of 1 channels needs \d+ bytes"):
        GraphSegment.allocate(segments.Segment(-1), 2, (spec,))


def test_closing_leaves_what_is_mapped(wire) -> None:
    one = wire()
    one.graph.close()
    one.graph.close()
    assert one.graph.state == at.OPEN
