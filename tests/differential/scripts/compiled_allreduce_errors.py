"""What allreduce.bind refuses."""

import ray
from ray.dag import InputNode
from ray.experimental.collective import allreduce
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    node, other = a.f.bind(inp), a.f.bind(inp)
    attempt(lambda: allreduce.bind([node, other]), "ValueError")
    attempt(lambda: allreduce.bind([node, node]), "ValueError")
    attempt(lambda: allreduce.bind([node, 3]), "ValueError")
    attempt(lambda: allreduce.bind([node], op="sum"), "ValueError")
