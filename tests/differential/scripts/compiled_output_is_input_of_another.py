"""A node that is read by another one and by the driver."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class A:
    def inc(self, x):
        return x + 1


a, b = A.remote(), A.remote()
with InputNode() as inp:
    first = a.inc.bind(inp)
    dag = MultiOutputNode([first, b.inc.bind(first)])
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(i)) for i in range(3)])
compiled.teardown()
