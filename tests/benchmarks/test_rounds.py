"""Check turns, comparison and the timed loop, with sides that only count."""

from __future__ import annotations

import gc

import pytest

from benchmarks.rounds import WARM_TRIPS, Measured, Side, compare, echoing, interleave, timed
from benchmarks.stats import Block


def scripted(name: str, log: list[str], *p50s: int) -> Side:
    """Make a side whose n-th block takes the n-th time."""
    remaining = iter(p50s)

    def block(trips: int) -> list[int]:
        log.append(name)
        return [next(remaining)] * trips

    return Side(name=name, block=block)


def test_sides_take_turns() -> None:
    log: list[str] = []
    sides = [scripted("ours", log, 1, 1), scripted("floor", log, 1, 1)]
    interleave(sides, rounds=2, trips=3)
    assert log == ["ours", "floor", "ours", "floor"]


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    sides = [
        scripted("ours", [], 2000, 6000, 40_000),
        scripted("floor", [], 1000, 2000, 10_000),
    ]
    row = compare(interleave(sides, rounds=3, trips=10))
    assert row == {
        "ours_us": 6.0,
        "ours_p99_us": 6.0,
        "floor_us": 2.0,
        "floor_p99_us": 2.0,
        "ratio": 3.0,
        "ratio_lo": 2.0,
        "ratio_hi": 4.0,
        "rounds": 3,
        "n": 30,
    }


def test_a_peer_is_compared_with_ours() -> None:
    p50s = {"ours": 2.0, "floor": 1.0, "other": 20.0}
    blocks = {name: [Block(p50_ns=p50, p99_ns=p50, n=1)] for name, p50 in p50s.items()}
    row = compare(Measured(blocks=blocks, failures={}))
    assert row["ratio"] == 2.0
    assert row["other_ratio"] == 10.0


def test_a_block_warms_up_and_runs_without_garbage_collection() -> None:
    collecting: list[bool] = []
    times = timed(lambda: collecting.append(gc.isenabled()))(5)
    assert len(times) == 5
    assert collecting == [True] * WARM_TRIPS + [False] * 5
    assert gc.isenabled()


def test_a_failing_trip_leaves_garbage_collection_on() -> None:
    answers = iter([1] * WARM_TRIPS)
    with pytest.raises(StopIteration):
        timed(lambda: next(answers))(1)
    assert gc.isenabled()


def test_a_side_that_does_not_echo_is_refused() -> None:
    with pytest.raises(RuntimeError, match="other was sent 1 and answered 2"):
        echoing("other", lambda: 2)
