"""Time-outs: none at all, for ever, nonsense."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile(_submit_timeout=5, _buffer_size_bytes=1000)
print(ray.get(compiled.execute(1), timeout=-1), ray.get(compiled.execute(2), timeout=None))
print(ray.get(compiled.execute(3), timeout=30))
compiled.teardown()
