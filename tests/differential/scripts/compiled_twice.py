"""The same nodes compiled again.

Departs: C4
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x + 1


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()


def again():
    other = dag.experimental_compile()
    value = ray.get(other.execute(1))
    other.teardown()
    return value


attempt(again, "ValueError")
print(ray.get(compiled.execute(2)))
compiled.teardown()
