"""Arrays, small and large."""

import numpy as np
import ray
from ray.dag import InputNode


@ray.remote
class A:
    def look(self, array):
        return array.flags.writeable, float(array.sum()), str(array.dtype), array.shape

    def scale(self, array):
        return array * 2


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.look.bind(a.scale.bind(inp))
compiled = dag.experimental_compile()
for n in (3, 1000, 100_000):
    print(ray.get(compiled.execute(np.ones(n, dtype=np.float32)))[1:])
print(ray.get(compiled.execute(np.ones((300, 400))))[0])
compiled.teardown()
with InputNode() as inp:
    dag = a.scale.bind(inp)
compiled = dag.experimental_compile()
array = np.arange(50_000)
got = ray.get(compiled.execute(array))
print(got.flags.writeable, (got == array * 2).all())
del got
compiled.teardown()
