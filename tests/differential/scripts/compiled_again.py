"""Another graph over the same actors, after the first was torn down."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def f(self, x):
        return x + 1


a, b = A.remote(), A.remote()
for order in ((a, b), (b, a)):
    with InputNode() as inp:
        dag = order[1].f.bind(order[0].f.bind(inp))
    compiled = dag.experimental_compile()
    print(ray.get(compiled.execute(1)))
    compiled.teardown()
