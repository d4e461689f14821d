from __future__ import annotations

import threading

import pytest

from compiled_dag import ChannelClosedError
from compiled_dag.cuda.flow import AHEAD, Flow
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from tests.cuda.fake import FakeDevice, Settings


class Ended:
    is_over = True

    def guard(self) -> None:
        if self.is_over:
            raise ChannelClosedError("it would have waited")


@pytest.fixture
def waiter():
    segment = Board.create()
    board = Board(segment.fd)
    segment.close()
    return Waiter(Doorbell(board, 0))


def test_the_host_is_only_so_many_executions_ahead_of_the_gpu(waiter) -> None:
    device, gate = FakeDevice(Settings("pause_us=0")), threading.Event()
    flow = Flow(device, Ended(), waiter, overlaps=False)
    device.launch(gate.wait)
    for execution in range(AHEAD):
        flow.begin(execution)
        flow.end(execution)
    with pytest.raises(ChannelClosedError):
        flow.begin(AHEAD)
    gate.set()
    device.synchronize()
    flow.begin(AHEAD)
    flow.close()
    flow.close()
    assert flow.receive is None


@pytest.mark.parametrize("aside", [False, True])
def test_settling_waits_for_the_stream_that_receives_too(waiter, aside) -> None:
    device, gate = FakeDevice(Settings("pause_us=0")), threading.Event()
    graph = Ended()
    flow = Flow(device, graph, waiter, overlaps=True)
    usual = device.current
    device.current = flow.receive if aside else usual
    device.launch(gate.wait)
    device.current = usual
    with pytest.raises(ChannelClosedError):
        flow.settle()
    gate.set()
    graph.is_over = False
    flow.settle()
    flow.close()
