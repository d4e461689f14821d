"""NVTX ranges on a GPU: that real ranges can be pushed from an actor's steps."""

from __future__ import annotations

import runtime
from compiled_dag import InputNode


@runtime.remote
class Device:
    def double(self, value):
        import torch

        return float((torch.full((4,), float(value), device="cuda") * 2).sum())


def test_a_graph_with_nvtx_ranges_works_and_warns_of_nothing(session, monkeypatch, capfd):
    monkeypatch.setenv("COMPILED_DAG_ENABLE_NVTX_PROFILING", "1")
    actor = Device.options(num_gpus=1).remote()
    with InputNode() as inp:
        output = actor.double.bind(inp)
    with output.experimental_compile() as graph:
        assert runtime.get(graph.execute(3), timeout=60) == 24
    assert "NVTX" not in capfd.readouterr().err
