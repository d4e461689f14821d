"""One input: exactly one argument."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
attempt(lambda: compiled.execute(), "ValueError")
attempt(lambda: compiled.execute(1, 2), "ValueError")
print(ray.get(compiled.execute(3)))
compiled.teardown()
