"""A method with several returns gives a tuple of nodes."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class A:
    @ray.method(num_returns=2)
    def split(self, x):
        return x // 10, x % 10

    def add(self, a, b):
        return a + b


a, b = A.remote(), A.remote()
with InputNode() as inp:
    tens, ones = a.split.bind(inp)
    dag = MultiOutputNode([tens, ones, b.add.bind(tens, ones)])
print(ray.get(dag.execute(42)))
