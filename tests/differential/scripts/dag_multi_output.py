"""Several outputs: a list in the same order."""

import ray
from ray.dag import InputNode, MultiOutputNode
from seen import attempt


@ray.remote
class A:
    def __init__(self, n):
        self.n = n

    def mul(self, x):
        return x * self.n


actors = [A.remote(n) for n in (2, 3)]
with InputNode() as inp:
    dag = MultiOutputNode([actor.mul.bind(inp) for actor in actors])
refs = dag.execute(5)
print(type(refs).__name__, ray.get(refs))
with InputNode() as inp:
    dag = MultiOutputNode((actors[0].mul.bind(inp),))
print(ray.get(dag.execute(1)))
attempt(lambda: MultiOutputNode(actors[0].mul.bind(1)), "ValueError")
