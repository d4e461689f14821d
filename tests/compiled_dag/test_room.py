"""What can never be there is refused when a graph is compiled; for processes see `test_owned`."""

from __future__ import annotations

import pytest

from compiled_dag import GraphError, InputNode, MemoryCapError, room
from tests.graphs import Worker

HUGE = 1 << 40


def compiled(host, **options):
    with InputNode() as inp:
        output = host.actor(Worker()).echo.bind(inp)
    return output.experimental_compile(**options)


def test_a_slot_that_no_memory_has_room_for_is_refused(host) -> None:
    with pytest.raises(MemoryCapError, match=rf"_buffer_size_bytes={HUGE}: .*; \d+ bytes are avai"):
        compiled(host, _buffer_size_bytes=HUGE)


def test_a_slot_over_the_cap_is_refused(host) -> None:
    with pytest.raises(GraphError, match=r"_buffer_size_bytes=8193 .* _max_memory_bytes=8192: "):
        compiled(host, _buffer_size_bytes=8193, _max_memory_bytes=8192)
    with compiled(host, _buffer_size_bytes=8192, _max_memory_bytes=8192) as graph:
        assert graph.execute(1).get(30) == 1


def test_slots_that_a_channel_cannot_address_are_refused(host, monkeypatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 1 << 60)
    text = rf"_buffer_size_bytes={HUGE} with _max_inflight_executions=3 .* at most \d+ bytes a slot"
    with pytest.raises(GraphError, match=text):
        compiled(host, _buffer_size_bytes=HUGE, _max_inflight_executions=3)
