"""Several methods of one actor in one graph."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def __init__(self):
        self.order = []

    def f(self, x):
        self.order.append("f")
        return x + 1

    def g(self, x):
        self.order.append("g")
        return x * 2

    def read(self):
        return self.order


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(a.g.bind(a.f.bind(inp)))
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(i)) for i in range(2)])
compiled.teardown()
print(ray.get(a.read.remote()))
