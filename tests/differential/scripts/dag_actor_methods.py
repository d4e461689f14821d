"""Methods of actors that exist already, executed as they are."""

import ray
from ray.dag import InputNode


@ray.remote
class Adder:
    def __init__(self, n):
        self.n = n
        self.calls = 0

    def add(self, x):
        self.calls += 1
        return x + self.n

    def count(self):
        return self.calls


one, ten = Adder.remote(1), Adder.remote(10)
with InputNode() as inp:
    dag = ten.add.bind(one.add.bind(inp))
print([ray.get(dag.execute(x)) for x in range(3)])
print(ray.get([one.count.remote(), ten.count.remote()]))
