"""Run every case once, as small as it can be: what it starts, measures and ends."""

from __future__ import annotations

import pytest

from benchmarks import instructions, registry, scaling, stepped, weights
from benchmarks.registry import CASES, Config
from benchmarks.scaling import Curve

KIB = 1 << 10


@pytest.fixture(autouse=True, scope="module")
def _loaded():
    registry.load()


def run(name, actors=1, what="", nbytes=0):
    config = Config(actors=actors, rounds=1, trips=5, what=what, nbytes=nbytes, quick=True)
    return list(CASES[name].run(config))


@pytest.mark.proc
@pytest.mark.parametrize(
    ("name", "actors", "what", "nbytes"),
    [
        ("chain", 2, "", 0),
        ("fan-out", 2, "", 0),
        ("fan-in", 2, "", 0),
        ("diamond", 4, "", 0),
        ("awaited", 1, "", 0),
        ("payload", 1, "numpy echo", 128 * KIB),
        ("payload", 1, "torch between", KIB),
        ("payload", 1, "bytes out", 128 * KIB),
        ("payload", 1, "bytes in", KIB),
        ("readers", 2, "numpy", 128 * KIB),
        ("readers", 2, "bytes", KIB),
        ("nested", 1, "", 12 * KIB),
        ("hog", 1, "", 0),
        ("collectives", 2, "gloo", 4),
        ("collectives", 2, "shm inside", 4),
    ],
)
def test_a_case_beside_its_floor_fills_its_row(name, actors, what, nbytes):
    (row,) = run(name, actors, what, nbytes)
    assert row["ours_us"] > 0
    assert row["floor_us"] > 0
    assert row["ratio"] > 0
    assert row["n"] == 5


@pytest.mark.proc
def test_many_in_flight_are_a_rate_too():
    (row,) = run("pipelined", 1, "10")
    assert row["what"] == "10 in flight"
    assert row["ours_per_s"] == round(1e6 / row["ours_us"])


@pytest.mark.proc
def test_a_graphs_life_has_three_parts():
    rows = run("compile-nodes", 2, "8")
    assert [(row["what"], row["nodes"]) for row in rows] == [
        ("compile", 8),
        ("first", 8),
        ("teardown", 8),
    ]
    assert rows[0]["us_per_node"] == round(rows[0]["ours_us"] / 8, 1)


@pytest.mark.proc
@pytest.mark.parametrize("what", ["row {} 2", "resident {}"])
def test_a_curve_ends_with_its_fit(monkeypatch, what):
    monkeypatch.setattr(scaling, "CURVES", {"few": Curve(what, (1, 2, 3, 4, 5), 20)})
    *points, fit = run("scaling", 1, "few")
    assert [point["size"] for point in points] == [1, 3, 5]
    assert set(fit) == {"exponent", "tail", "fixed_us", "each_us", "worse_than_linear"}


def test_weights_are_read_in_fresh_interpreters(monkeypatch):
    asked = []

    def load(config, name, number, figure):
        asked.append((name, number, figure))
        return {figure: 1.0}

    monkeypatch.setattr(weights, "beside_peer", load)
    assert len(run("memory", 4)) == 2
    assert len(run("idle", 4)) == 1
    assert asked == [
        ("memory", 4, "ours_mib"),
        ("chain", 4, "ours_mib"),
        ("idle", 4, "ours_percent"),
    ]


def test_instructions_of_an_execution_are_the_difference_of_two_runs(monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(instructions, "count", lambda idle, runs: 7_000_000 + runs * 50_000)
    assert run("instructions", 1, "4") == [{"what": "4 idle programs", "ours_instructions": 50_000}]
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    (row,) = run("instructions", 1, "4")
    assert row["skipped"] == "valgrind is not installed"


@pytest.mark.parametrize("idle", [0, 3])
def test_a_stepped_graph_runs_on_this_thread(idle):
    with stepped.executing(idle) as execute:
        assert [execute() for _ in range(20)] == [1] * 20
