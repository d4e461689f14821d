"""What is changed after `execute` does not matter."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
items = [1, 2]
ref = compiled.execute(items)
items.append(3)
print(ray.get(ref))
compiled.teardown()
