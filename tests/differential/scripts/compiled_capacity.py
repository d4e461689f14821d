"""More unfetched executions than allowed."""

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
compiled = dag.experimental_compile(_max_inflight_executions=3)
refs = [compiled.execute(i) for i in range(3)]
attempt(lambda: compiled.execute(3), "RayCgraphCapacityExceeded", "RaySystemError", "RayError")
print(ray.get(refs[0]))
refs.append(compiled.execute(3))
print([ray.get(ref) for ref in refs[1:]])
compiled.teardown()
