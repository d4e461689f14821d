"""Values are stored once and got as often as one likes."""

import numpy as np
import ray
from seen import attempt

ref = ray.put({"a": [1, 2], "b": None})
print(ray.get(ref), ray.get([ref, ref]))
print(ray.get(ray.put(ray.get(ray.put((1, "x"))))))
print(ray.get([]))
array = np.arange(200_000, dtype=np.float64)
got = ray.get(ray.put(array))
print(got.sum() == array.sum(), got.flags.writeable, array.flags.writeable)
attempt(lambda: got.__setitem__(0, 1), "ValueError")
attempt(lambda: ray.put(ref), "TypeError")
