"""References that nobody gets."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class A:
    def f(self, x):
        return x


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = MultiOutputNode([a.f.bind(inp), b.f.bind(inp)])
compiled = dag.experimental_compile()
for i in range(30):
    compiled.execute(i)
    if i % 5 == 4:
        print(ray.get(compiled.execute(i)))
first, second = compiled.execute(100)
del first
print(ray.get(second))
compiled.teardown()
