"""What can never be there is refused when a graph is compiled; for processes see `test_owned`."""

from __future__ import annotations

import contextlib
import errno
import os
import resource

import pytest

from compiled_dag import DAGContext, GraphError, InputNode, MemoryCapError, room
from compiled_dag.shm.segment import PAGE
from tests.graphs import Worker

HUGE = 1 << 40


def compiled(host, **options):
    with InputNode() as inp:
        output = host.actor(Worker()).echo.bind(inp)
    return output.experimental_compile(**options)


@contextlib.contextmanager
def descriptors_left(count: int):
    """Let this process open only so many files more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[0] + 20, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for fd in fillers[:count]:
            os.close(fd)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in fillers[count:]:
            os.close(fd)


@pytest.mark.parametrize("left", [0, 1])
def test_a_process_without_descriptors_says_so(host, left) -> None:
    with InputNode() as inp:
        output = host.actor(Worker()).echo.bind(inp)
    with (
        descriptors_left(left),
        pytest.raises((OSError, MemoryCapError), match=r"no file descriptors left, .*ulimit -n"),
    ):
        output.experimental_compile()
    with output.experimental_compile() as graph:
        assert graph.execute(1).get(30) == 1


def test_another_error_of_the_system_stays_as_it_is() -> None:
    with pytest.raises(FileNotFoundError, match="gone"), room.needing_descriptors():
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_slot_that_no_memory_has_room_for_is_refused(host) -> None:
    with pytest.raises(MemoryCapError, match=rf"_buffer_size_bytes={HUGE}: .*; \d+ bytes are avai"):
        compiled(host, _buffer_size_bytes=HUGE)


def test_a_slot_over_the_cap_is_refused(host) -> None:
    with pytest.raises(GraphError, match=r"_buffer_size_bytes=8193 .* _max_memory_bytes=8192: "):
        compiled(host, _buffer_size_bytes=8193, _max_memory_bytes=8192)
    with compiled(host, _buffer_size_bytes=8192, _max_memory_bytes=8192) as graph:
        assert graph.execute(1).get(30) == 1


def test_a_size_that_nobody_chose_gives_way_to_the_cap(host) -> None:
    with compiled(host, _max_memory_bytes=400_000) as graph:
        assert (
            graph.options.buffer_size_bytes == 100_000 // PAGE * PAGE
        )  # two in each of two channels
        for nbytes in (10_000, 120_000):  # it grows as ever
            assert len(graph.execute(bytes(nbytes)).get(30)) == nbytes
        with pytest.raises(MemoryCapError, match="_max_memory_bytes=400000"):
            graph.execute(bytes(500_000))
        assert graph.execute(1).get(30) == 1
    with compiled(host, _max_memory_bytes=1 << 30) as graph:
        assert graph.options.buffer_size_bytes == 1_000_000


def test_a_cap_below_a_page_leaves_small_values(host) -> None:
    with compiled(host, _max_memory_bytes=100) as graph:
        assert graph.execute(1).get(30) == 1
        with pytest.raises(MemoryCapError, match="_max_memory_bytes=100"):
            graph.execute(bytes(5000))
        assert graph.execute(2).get(30) == 2


def test_a_size_in_the_context_is_chosen(host, monkeypatch) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "buffer_size_bytes", 9000)
    with pytest.raises(GraphError, match="_buffer_size_bytes=9000 is more than"):
        compiled(host, _max_memory_bytes=8192)


def test_a_size_that_nobody_chose_gives_way_to_what_a_channel_can_address(host) -> None:
    with pytest.raises(MemoryCapError, match=r"a graph of 2 channels.*_max_inflight_executions"):
        compiled(host, _max_inflight_executions=1 << 29)


def test_slots_that_a_channel_cannot_address_are_refused(host, monkeypatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 1 << 60)
    text = rf"_buffer_size_bytes={HUGE} with _max_inflight_executions=3 .* at most \d+ bytes a slot"
    with pytest.raises(GraphError, match=text):
        compiled(host, _buffer_size_bytes=HUGE, _max_inflight_executions=3)
