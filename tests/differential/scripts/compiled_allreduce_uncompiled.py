"""Collectives exist only in compiled graphs."""

import ray
from ray.dag import InputNode, MultiOutputNode
from ray.experimental.collective import allreduce
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


actors = [A.remote(), A.remote()]
with InputNode() as inp:
    dag = MultiOutputNode(allreduce.bind([actor.f.bind(inp) for actor in actors]))
attempt(lambda: dag.execute(1), "NotImplementedError")
