"""Several executions in flight, got in order."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def f(self, x):
        return x + 1


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.f.bind(a.f.bind(inp))
compiled = dag.experimental_compile()
refs = [compiled.execute(i) for i in range(10)]
print([ray.get(ref) for ref in refs])
refs = [compiled.execute(i) for i in range(5)]
print(ray.get(refs))
compiled.teardown()
