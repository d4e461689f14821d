"""NVTX ranges and torch's profiler, by environment. Ranges on a real GPU: `gpu_tests`."""

from __future__ import annotations

import json
import os

import pytest

import runtime
from compiled_dag import GraphError
from compiled_dag.options import CompileOptions, Profiling
from compiled_dag.trace import torch_profilers
from compiled_dag.trace.torch_profilers import FOLDER
from tests.gates import Gate, compiled, one_method
from tests.graphs import Worker

NVTX, TORCH = "COMPILED_DAG_ENABLE_NVTX_PROFILING", "COMPILED_DAG_ENABLE_TORCH_PROFILING"
torch = pytest.importorskip("torch")


def test_both_at_once_are_refused_at_compile(host, monkeypatch) -> None:
    monkeypatch.setenv(NVTX, "1")
    monkeypatch.setenv(TORCH, "true")
    with pytest.raises(GraphError, match=f"{NVTX} and {TORCH} are both set"):
        compiled(host)
    monkeypatch.setenv(TORCH, "0")
    assert CompileOptions.resolve().profiling == Profiling(nvtx=True)


@pytest.fixture
def ranges(monkeypatch) -> list:
    """What torch is told of ranges, as on a machine with CUDA."""
    from torch.cuda import nvtx

    told: list = []
    monkeypatch.setattr(torch_profilers, "_why_no_nvtx", lambda: "")
    monkeypatch.setattr(nvtx, "range_push", told.append)
    monkeypatch.setattr(nvtx, "range_pop", lambda: told.append("."))
    monkeypatch.setenv(NVTX, "1")
    return told


def test_every_step_is_in_a_range_of_its_own(host, ranges) -> None:
    with compiled(host) as graph:
        graph.execute(1).get(30)
        graph.execute(2).get(30)
    assert ranges == ["read input", ".", "Worker.echo", ".", "write Worker.echo#1", "."] * 2


def test_a_range_ends_where_its_step_is_broken_off(host, ranges) -> None:
    first, second = host.actor(gate := Gate()), host.actor(Worker(1))
    graph = second.echo.bind(one_method(first, "hold")).experimental_compile()
    graph.execute(1)
    gate.wait_entered()
    gate.opened.set()
    graph.teardown()
    assert ranges.count(".") * 2 == len(ranges)


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built with CUDA here")
def test_without_cuda_the_graph_works_and_says_why_there_are_no_ranges(host, monkeypatch) -> None:
    monkeypatch.setenv(NVTX, "1")
    reason = (
        rf"no NVTX ranges on actor Worker\(1\): torch {torch.__version__} is built without CUDA"
    )
    with pytest.warns(RuntimeWarning, match=reason.replace("+", r"\+")):
        graph = compiled(host)
    with graph:
        assert graph.execute(1).get(30) == 1


@runtime.remote
class Profiled:
    def change_folder(self, folder):
        os.chdir(folder)

    def full(self, value):
        return float(torch.full((3,), float(value)).sum())

    def echo(self, value):
        return value


@pytest.mark.proc
def test_torchs_profiler_runs_from_the_first_graph_to_the_last(
    session, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv(TORCH, "1")
    actor = Profiled.remote()
    runtime.get(actor.change_folder.remote(tmp_path))
    first = one_method(actor, "full").experimental_compile()
    with one_method(actor).experimental_compile() as second:
        assert runtime.get(second.execute(1)) == 1
    assert runtime.get(first.execute(2)) == 6
    assert list((tmp_path / FOLDER).iterdir()) == []
    first.teardown()
    (file,) = (tmp_path / FOLDER).iterdir()
    assert file.name.startswith("Profiled_")
    names = {event.get("name") for event in json.loads(file.read_text())["traceEvents"]}
    assert "aten::full" in names
