"""A failed task is ready, and `wait` raises nothing."""

import ray


@ray.remote(max_retries=0)
def fail():
    raise ValueError


ready, rest = ray.wait([fail.remote()], timeout=20)
print(len(ready), rest)
