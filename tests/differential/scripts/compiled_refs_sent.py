"""References of compiled graphs as arguments, and in the store."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


@ray.remote
def task(x):
    return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
ref = compiled.execute(1)
attempt(lambda: task.remote(ref), "TypeError", "ValueError")
attempt(lambda: ray.put(ref), "TypeError", "ValueError")
print(ray.get(ref))
compiled.teardown()
