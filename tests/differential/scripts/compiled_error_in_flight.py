"""Exceptions among several executions in flight."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        if x % 2:
            raise KeyError(x)
        return x


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.f.bind(a.f.bind(inp))
compiled = dag.experimental_compile()
refs = [compiled.execute(i) for i in range(6)]
for ref in refs:
    attempt(lambda ref=ref: ray.get(ref), "KeyError", "RayTaskError")
compiled.teardown()
