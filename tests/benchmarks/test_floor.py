"""Check that the floor's processes echo and that none is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from benchmarks import floor

pytestmark = pytest.mark.proc


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the stages that are forked."""
    forked: list[int] = []
    fork = os.fork

    def recorded() -> int:
        if pid := fork():
            forked.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", recorded)
    return forked


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_chain_answers_and_is_reaped(pids: list[int]) -> None:
    with floor.running(floor.chain(2)) as side:
        assert len(side.block(3)) == 3
        assert len(alive(pids)) == 2
    assert not alive(pids)


def test_a_chain_is_reaped_when_the_measurement_fails(pids: list[int]) -> None:
    with pytest.raises(KeyError), floor.running(floor.chain(2)):
        raise KeyError
    assert not alive(pids)


def test_a_silent_chain_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "ANSWER_LIMIT_S", 0.3)
    monkeypatch.setattr(floor, "_serve", lambda *_: signal.pause())
    with pytest.raises(TimeoutError, match="not answered"), floor.running(floor.chain(1)):
        pass


@pytest.mark.parametrize(
    "stages", [floor.fan_out(3), floor.fan_in(2), floor.diamond()], ids=["out", "in", "diamond"]
)
def test_other_shapes_answer_too(pids: list[int], stages: tuple[floor.Stage, ...]) -> None:
    with floor.running(stages) as side:
        assert len(side.block(20)) == 20
        assert len(pids) == len(stages)
    assert not alive(pids)


def test_a_floor_that_answers_wrong_is_refused() -> None:
    stages = (floor.Stage((0,), 1, lambda value: value + 1),)
    with pytest.raises(RuntimeError, match="floor was sent 1"), floor.running(stages):
        pass
