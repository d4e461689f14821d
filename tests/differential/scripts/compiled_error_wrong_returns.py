"""A method that returns another number of values than it declares.

Departs: E3
"""

import ray
from ray.dag import InputNode, MultiOutputNode
from seen import attempt


@ray.remote
class A:
    @ray.method(num_returns=2)
    def pair(self, n):
        return tuple(range(n))


a = A.remote()
with InputNode() as inp:
    dag = MultiOutputNode(a.pair.bind(inp))
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(2)))
attempt(lambda: ray.get(compiled.execute(3)), "ValueError", "RayTaskError")
attempt(lambda: ray.get(compiled.execute(2)), "ValueError", "RayError")
compiled.teardown()
