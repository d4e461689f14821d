"""One input to several actors, each with a share; their results meet on one actor again."""

import numpy as np
import ray
from ray.dag import InputNode


@ray.remote
class Worker:
    def __init__(self, rank, world):
        self.rank, self.world = rank, world

    def share(self, array):
        return array[self.rank :: self.world] * (self.rank + 1)

    def join(self, *parts):
        return np.concatenate(parts)


workers = [Worker.remote(rank, 3) for rank in range(3)]
with InputNode() as inp:
    parts = [worker.share.bind(inp) for worker in workers]
    dag = workers[0].join.bind(*parts)
compiled = dag.experimental_compile()
for size in (6, 60, 6):
    result = ray.get(compiled.execute(np.arange(size)))
    print(result.shape, result.dtype, int(result.sum()), result[:4].tolist())
    del result
compiled.teardown()
