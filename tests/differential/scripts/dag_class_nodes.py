"""Actors made by the graph."""

import ray
from ray.dag import InputNode


@ray.remote
class Counter:
    def __init__(self, start):
        self.value = start

    def add(self, n):
        self.value += n
        return self.value


with InputNode() as inp:
    counter = Counter.bind(10)
    first = counter.add.bind(inp)
    dag = counter.add.bind(first)
print(ray.get(dag.execute(1)))
print(ray.get(dag.execute(2)))
handle = Counter.bind(5).execute()
print(ray.get(handle.add.remote(1)))
