"""Actors that the compiled graph makes.

Departs: C14
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class Counter:
    def __init__(self, start):
        self.value = start

    def add(self, n):
        self.value += n
        return self.value


def run():
    with InputNode() as inp:
        dag = Counter.bind(10).add.bind(inp)
    compiled = dag.experimental_compile()
    values = [ray.get(compiled.execute(i)) for i in range(3)]
    compiled.teardown()
    return values


attempt(run, "NotImplementedError", "ValueError")
