"""The case of GPUs: its arithmetic, that it skips, and that it runs (on the CPU, nothing shown)."""

from __future__ import annotations

import pytest

from benchmarks import gpu, gpu_actors
from benchmarks.registry import CASES, Config
from benchmarks.rounds import Measured
from benchmarks.stats import Block

MIB = 1 << 20


def config(what, nbytes=0, *, quick=False):
    return Config(actors=2, rounds=1, trips=3, what=what, nbytes=nbytes, quick=quick)


def test_large_tensors_go_over_less_often_and_are_timed_less_often() -> None:
    sizes = (4, MIB, 64 * MIB, 1 << 30)
    assert [gpu.hops_of(nbytes) for nbytes in sizes] == [16, 16, 8, 2]
    many = Config(actors=2, rounds=1, trips=50)
    assert [gpu.trips_of(many, nbytes) for nbytes in sizes] == [50, 50, 8, 3]


def test_quick_runs_and_the_cpu_leave_the_largest_size_out(monkeypatch) -> None:
    assert gpu.sizes(config("hop"))[-1] == 1 << 30
    assert gpu.sizes(config("hop", quick=True))[-1] == 64 * MIB
    assert gpu.sizes(config("hop", 8)) == (8,)
    monkeypatch.setenv(gpu_actors.VARIABLE, "cpu")
    assert gpu.sizes(config("hop"))[-1] == 64 * MIB


def test_the_share_of_the_ceiling_is_that_of_the_copies() -> None:
    assert gpu.figures(1000, 1.0, 1.0) == {}
    assert gpu.figures(MIB, 200.0, 100.0) == {
        "gb_per_s": 10.5, "ceiling_gb_per_s": 21.0, "fraction": 0.5
    }  # fmt: skip


def test_overhead_is_taken_round_by_round_and_by_stage() -> None:
    def blocks(*times_us):
        return [Block(p50_ns=time * 1e3, p99_ns=0, n=1) for time in times_us]

    sides = {"ours": blocks(500, 900, 700), "alone": blocks(100, 400, 200)}
    assert gpu.overhead_us(Measured(blocks=sides, failures={}), 4) == 125.0


def test_without_a_gpu_the_case_says_why(monkeypatch) -> None:
    monkeypatch.setattr(gpu_actors, "why_not", lambda: "no GPU: for a reason")
    assert list(CASES["gpu"].run(config("hop"))) == [{"skipped": "no GPU: for a reason"}]


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:num_gpus=", "ignore:the GPUs are fake")
@pytest.mark.parametrize(
    ("what", "nbytes", "figures"),
    [
        ("hop", 4, {"copies_ratio", "torch_ipc_ratio"}),
        ("host", 0, set()),
        ("bandwidth", MIB, {"copies_ratio", "fraction"}),
        ("pipeline", 0, {"alone_ratio", "overhead_us"}),
        ("allreduce", 4, {"alone_ratio"}),
    ],
)
def test_every_part_fills_its_rows(monkeypatch, what, nbytes, figures) -> None:
    monkeypatch.setenv(gpu_actors.VARIABLE, "cpu")
    rows = list(CASES["gpu"].run(config(what, nbytes)))
    for row in rows:
        assert row["ours_us"] > 0
        assert row["device"] == "cpu"
        assert figures <= set(row)
    assert len(rows) == (2 if what == "allreduce" else 1)
