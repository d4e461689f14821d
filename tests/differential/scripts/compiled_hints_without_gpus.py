"""A device transport between actors without GPUs is refused."""

import ray
import torch
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def make(self, n):
        return torch.ones(n)

    def total(self, tensor):
        return tensor.sum().item()


a, b = A.remote(), A.remote()


def run(draw):
    with InputNode() as inp:
        dag = draw(inp)
    dag.experimental_compile().teardown()


def edge(inp):
    return b.total.bind(a.make.bind(inp).with_tensor_transport(transport="nccl"))


def to_driver(inp):
    return a.make.bind(inp).with_tensor_transport(transport="nccl")


attempt(lambda: run(edge), "ValueError")
attempt(lambda: run(to_driver), "ValueError")
