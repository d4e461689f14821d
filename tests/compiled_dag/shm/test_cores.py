from __future__ import annotations

import os

import pytest

from compiled_dag.shm import cores


def test_who_moves_is_bound_to_nothing() -> None:
    before = os.sched_getaffinity(0)
    for core in before:
        cores.move(core)
        assert os.sched_getaffinity(0) == before
        assert cores.current() in before
    assert cores.count() == len(before)


def test_there_is_no_going_where_one_may_not() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(OSError, match="Invalid argument"):
        cores.move(1 << 14)
    assert os.sched_getaffinity(0) == before
