"""An allreduce between actors without GPUs, through a communicator for CPUs."""

import ray
import torch
from ray.dag import InputNode, MultiOutputNode
from ray.experimental.channel.cpu_communicator import CPUCommunicator
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


actors = [A.remote(n) for n in (1, 2)]
group = CPUCommunicator(2, actors)
print(group.get_world_size(), [group.get_rank(actor) for actor in actors])
attempt(lambda: group.get_rank(A.remote(3)), "ValueError")
with InputNode() as inp:
    reduced = allreduce.bind([a.tensor.bind(inp) for a in actors], ReduceOp.SUM, transport=group)
    dag = MultiOutputNode([a.read.bind(t) for a, t in zip(actors, reduced, strict=True)])
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(x)) for x in range(3)])
compiled.teardown()


def others():
    stranger = A.remote(3)
    with InputNode() as inp:
        nodes = [a.tensor.bind(inp) for a in (actors[0], stranger)]
        dag = MultiOutputNode(allreduce.bind(nodes, transport=group))
    dag.experimental_compile()


attempt(others, "ValueError")
