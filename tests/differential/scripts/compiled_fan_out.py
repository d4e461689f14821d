"""One input, several actors, several outputs."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class Mul:
    def __init__(self, n):
        self.n = n

    def mul(self, x):
        return x * self.n


actors = [Mul.remote(n) for n in (1, 2, 3)]
with InputNode() as inp:
    dag = MultiOutputNode([actor.mul.bind(inp) for actor in actors])
compiled = dag.experimental_compile()
for x in range(3):
    refs = compiled.execute(x)
    print(type(refs).__name__, len(refs), ray.get(refs))
refs = compiled.execute(7)
print([ray.get(ref) for ref in reversed(refs)])
compiled.teardown()
