"""An actor with several threads in a graph."""

import ray
from ray.dag import InputNode


@ray.remote(max_concurrency=2)
class A:
    def f(self, x):
        return x + 1


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(a.f.bind(inp))
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(i)) for i in range(3)])
compiled.teardown()
