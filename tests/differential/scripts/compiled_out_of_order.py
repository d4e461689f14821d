"""Results may be got in any order."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class A:
    def f(self, x):
        return x + 1


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = MultiOutputNode([a.f.bind(inp), b.f.bind(inp)])
compiled = dag.experimental_compile()
refs = [compiled.execute(10 * i) for i in range(4)]
print(ray.get(refs[3]), ray.get(refs[0]))
print(ray.get(refs[2][1]), ray.get(refs[1][0]), ray.get(refs[2][0]), ray.get(refs[1][1]))
compiled.teardown()
