"""An allreduce between actors without GPUs.

Departs: L16
"""

import ray
import torch
from ray.dag import InputNode, MultiOutputNode
from ray.experimental.collective import allreduce
from ray.experimental.util.types import ReduceOp
from seen import attempt


@ray.remote
class A:
    def __init__(self, n):
        self.n = n

    def tensor(self, x):
        return torch.full((2,), x * self.n)

    def read(self, tensor):
        return tensor.tolist()


def run(op):
    actors = [A.remote(n) for n in (1, 2)]
    with InputNode() as inp:
        reduced = allreduce.bind([actor.tensor.bind(inp) for actor in actors], op)
        dag = MultiOutputNode([a.read.bind(t) for a, t in zip(actors, reduced, strict=True)])
    compiled = dag.experimental_compile()
    value = ray.get(compiled.execute(3))
    compiled.teardown()
    return value


attempt(lambda: run(ReduceOp.SUM), "ValueError", "RayError")
attempt(lambda: run(ReduceOp.MAX), "ValueError", "RayError")
