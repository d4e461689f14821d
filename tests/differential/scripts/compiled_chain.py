"""Values go from actor to actor."""

import ray
from ray.dag import InputNode


@ray.remote
class Add:
    def __init__(self, n):
        self.n = n

    def add(self, x):
        return x + self.n


actors = [Add.remote(10**i) for i in range(3)]
with InputNode() as inp:
    node = inp
    for actor in actors:
        node = actor.add.bind(node)
compiled = node.experimental_compile()
print([ray.get(compiled.execute(i)) for i in range(5)])
compiled.teardown()
print(ray.get([actor.add.remote(0) for actor in actors]))
