"""Arrays arrive read-only and whole."""

import numpy as np
import ray
from seen import attempt


@ray.remote
def look(array):
    return array.flags.writeable, float(array.sum()), array.shape


@ray.remote
def write(array):
    array[0] = 1


@ray.remote
def make(n):
    return np.ones(n), {"small": np.arange(3)}


big = np.ones((500, 500))
print(ray.get(look.remote(ray.put(big))))
attempt(lambda: ray.get(write.remote(ray.put(big))), "ValueError", "RayTaskError")
large, rest = ray.get(make.remote(100_000))
print(large.shape, large.sum(), rest["small"].tolist())
