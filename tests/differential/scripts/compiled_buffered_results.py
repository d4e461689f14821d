"""More results read on the way than the driver may keep."""

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
compiled = dag.experimental_compile(_max_inflight_executions=5, _max_buffered_results=1)
refs = [compiled.execute(i) for i in range(4)]
attempt(lambda: ray.get(refs[3]), "RayCgraphCapacityExceeded")
compiled.teardown()
