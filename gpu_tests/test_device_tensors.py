"""GPU tensors in graphs and calls, through host memory."""

from __future__ import annotations

import os

import pytest

import runtime
from compiled_dag import InputNode, TaskError

pytestmark = [pytest.mark.proc, pytest.mark.usefixtures("session")]


class Worker:
    def make(self, n):
        import torch

        return torch.arange(n, device="cuda", dtype=torch.float32)

    def total(self, tensor):
        return tensor.device.type, float(tensor.sum())

    def visible(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_gpu_tensor_stays_on_a_gpu_between_actors_with_gpus():
    actor = runtime.remote(Worker).options(num_gpus=0.5)
    first, second = actor.remote(), actor.remote()
    with InputNode() as inp:
        dag = second.total.bind(first.make.bind(inp))
    with dag.experimental_compile() as compiled:
        assert compiled.execute(1000).get() == ("cuda", 499500.0)


def test_a_gpu_tensor_for_a_reader_without_gpu_is_that_readers_error():
    first = runtime.remote(Worker).options(num_gpus=1).remote()
    second = runtime.remote(Worker).remote()
    with InputNode() as inp:
        dag = second.total.bind(first.make.bind(inp))
    with dag.experimental_compile() as compiled:
        with pytest.raises(TaskError, match="sees no GPU"):
            compiled.execute(1000).get()
        with pytest.raises(TaskError, match="sees no GPU"):
            compiled.execute(10).get()


def test_actors_without_gpus_see_none():
    actor = runtime.remote(Worker).remote()
    assert runtime.get(actor.visible.remote()) == ""
