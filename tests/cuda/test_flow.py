from __future__ import annotations

import threading

import pytest

from compiled_dag import ChannelClosedError
from compiled_dag.cuda.flow import AHEAD, Flow
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from tests.cuda.fake import FakeDevice, Settings


class Ended:
    def guard(self) -> None:
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
