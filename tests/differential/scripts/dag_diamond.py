"""A node that is used twice runs once."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def __init__(self):
        self.calls = 0

    def f(self, x):
        self.calls += 1
        return self.calls * 100 + x

    def join(self, a, b):
        return a, b


top, bottom = A.remote(), A.remote()
with InputNode() as inp:
    shared = top.f.bind(inp)
    dag = bottom.join.bind(shared, shared)
print(ray.get(dag.execute(1)), ray.get(dag.execute(2)))
