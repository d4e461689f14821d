from __future__ import annotations

import os

import pytest

from benchmarks import load, memory
from benchmarks.registry import CASES, Config
from benchmarks.registry import load as load_cases
from benchmarks.systems import OURS


def test_a_process_is_of_its_own_family_and_has_memory():
    assert os.getpid() in memory.family()
    assert memory.pss(os.getpid()) > 1 << 20
    assert memory.pss(1 << 30) == 0


@pytest.mark.proc
@pytest.mark.parametrize(
    ("name", "number"),
    [("memory", 2), ("chain", 2), ("idle", 1), ("pending", 500), ("alive", 3)],
)
def test_each_load_fills_its_row(name, number, monkeypatch):
    monkeypatch.setattr(load, "_IDLE_S", 0.1)
    row = load.LOADS[name](number, OURS)
    assert all(isinstance(value, (int, float)) and value >= 0 for value in row.values())


@pytest.mark.proc
def test_the_case_yields_a_row_for_each_measurement():
    load_cases()
    rows = list(CASES["core"].run(Config(actors=1, rounds=1, trips=10)))
    assert [row["case"] for row in rows if "case" in row] == [
        "core-pending",
        "core-alive",
    ]
    measured = [row for row in rows if "what" in row]
    assert len(measured) == 11
    assert all(row["ours_us"] and row["floor_us"] for row in measured)
