"""Which executions are recorded: all while they are slow, one in 16 while they are fast."""

from __future__ import annotations

import pytest

from compiled_dag.channel.layout import TRACE_MASK_WORD
from compiled_dag.trace import log as module
from compiled_dag.trace.log import SAMPLED, Log

US = 1000


class Clocked:
    """A log on a clock that the test moves."""

    def __init__(self, monkeypatch, num_steps: int = 3) -> None:
        self.now = 1
        self.words = memoryview(bytearray(4096)).cast("Q")
        self.log = Log(2, num_steps, self.words)
        self.next = 0
        monkeypatch.setattr(module.time, "monotonic_ns", lambda: self.now)

    def execute(self, count: int, every_ns: int) -> int:
        """Execute that often; returns how many were recorded."""
        before = len(self.log.submitted)
        for _ in range(count):
            self.now += every_ns
            if not self.next & self.log.mask:
                self.log.sent(self.next, self.now)
            self.next += 1
        return len(self.log.submitted) - before


@pytest.fixture
def clocked(monkeypatch) -> Clocked:
    return Clocked(monkeypatch)


def test_slow_executions_are_all_recorded(clocked) -> None:
    assert clocked.execute(100, 200 * US) == 100


def test_fast_ones_are_sampled_after_the_first_few_and_all_see_the_mask(clocked) -> None:
    assert 8 < clocked.execute(400, 10 * US) < 80
    assert clocked.words[TRACE_MASK_WORD] == clocked.log.mask == SAMPLED
    assert clocked.execute(160, 10 * US) == 10


def test_slow_ones_are_all_recorded_again_soon(clocked) -> None:
    clocked.execute(400, 10 * US)
    clocked.execute(4 * 16, 1000 * US)
    assert clocked.words[TRACE_MASK_WORD] == clocked.log.mask == 0
    assert clocked.execute(20, 1000 * US) == 20


def test_a_pause_counts_as_a_slow_execution_not_as_many(clocked) -> None:
    clocked.execute(400, 10 * US)
    clocked.execute(1, 10**10)
    assert clocked.execute(1000, 10 * US) < 200


def test_bursts_count_as_what_they_are_on_the_whole(clocked) -> None:
    recorded = sum(clocked.execute(9, 3 * US) + clocked.execute(1, 50_000 * US) for _ in range(50))
    assert recorded == 500


def test_many_steps_take_longer_to_record(monkeypatch) -> None:
    clocked = Clocked(monkeypatch, num_steps=100)
    clocked.execute(400, 200 * US)
    assert clocked.log.mask == SAMPLED


def test_what_is_kept_is_bounded() -> None:
    words = memoryview(bytearray(4096)).cast("Q")
    assert Log(0, 1, words).taken.maxlen == Log(0, 1, words).submitted.maxlen == 2048
    assert Log(100, 1, words).taken.maxlen == 8192
