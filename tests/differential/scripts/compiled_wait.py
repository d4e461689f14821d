"""`wait` for results of compiled graphs.

Departs: X17
"""

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
refs = [compiled.execute(i) for i in range(2)]
attempt(lambda: [len(part) for part in ray.wait(refs, num_returns=2)], "TypeError", "ValueError")
print(ray.get(refs))
compiled.teardown()
