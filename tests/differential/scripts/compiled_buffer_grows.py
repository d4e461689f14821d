"""Values larger than the buffer asked for."""

import numpy as np
import ray
from ray.dag import InputNode


@ray.remote
class A:
    def grow(self, n):
        return np.zeros(n, dtype=np.uint8)

    def size(self, array):
        return array.nbytes


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.size.bind(a.grow.bind(inp))
compiled = dag.experimental_compile(_buffer_size_bytes=10_000)
print([ray.get(compiled.execute(n)) for n in (10, 9_000, 50_000, 3_000_000, 1)])
compiled.teardown()
