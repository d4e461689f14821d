"""Two graphs at the same time, with actors of their own."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def __init__(self, n):
        self.n = n

    def f(self, x):
        return x + self.n


graphs = []
actors = [A.remote(1), A.remote(2)]
for actor in actors:
    with InputNode() as inp:
        dag = actor.f.bind(inp)
    graphs.append(dag.experimental_compile())
refs = [graph.execute(10) for _ in range(3) for graph in graphs]
print([ray.get(ref) for ref in refs])
for graph in graphs:
    graph.teardown()
