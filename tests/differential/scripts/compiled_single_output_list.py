"""A MultiOutputNode of one is a list of one."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = MultiOutputNode([a.f.bind(inp)])
compiled = dag.experimental_compile()
refs = compiled.execute(1)
print(type(refs).__name__, ray.get(refs))
compiled.teardown()
