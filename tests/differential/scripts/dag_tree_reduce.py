"""A tree of tasks that sums blocks, drawn in a loop, and executed for several inputs."""

import numpy as np
import ray
from ray.dag import InputNode


@ray.remote
def block(n, i):
    return np.arange(i * n, (i + 1) * n)


@ray.remote
def add(left, right):
    return left + right


@ray.remote
def finish(array, *, scale=1):
    return int(array.sum()) * scale


with InputNode() as inp:
    level = [block.bind(inp.n, i) for i in range(8)]
    while len(level) > 1:
        level = [add.bind(*level[i : i + 2]) for i in range(0, len(level), 2)]
    dag = finish.bind(level[0], scale=inp.scale)
for n, scale in [(1, 1), (10, 2), (100, -1)]:
    print(ray.get(dag.execute(n=n, scale=scale)))
