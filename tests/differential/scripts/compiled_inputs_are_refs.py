"""A reference as an input."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def kind(self, x):
        return isinstance(x, ray.ObjectRef)


a = A.remote()
with InputNode() as inp:
    dag = a.kind.bind(inp)
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(ray.put(1))))
print(ray.get(compiled.execute(1)))
compiled.teardown()
