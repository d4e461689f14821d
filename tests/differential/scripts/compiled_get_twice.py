"""Getting a result again.

Departs: X12
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return [x]


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
ref = compiled.execute(1)
print(ray.get(ref))
attempt(lambda: ray.get(ref), "ValueError")
compiled.teardown()
