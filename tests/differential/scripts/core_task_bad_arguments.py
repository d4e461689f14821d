"""Arguments are checked when a task is submitted."""

import ray
from seen import attempt


@ray.remote
def f(a, b=1):
    return a, b


attempt(lambda: f.remote(), "TypeError")
attempt(lambda: f.remote(1, c=2), "TypeError")
attempt(lambda: f.remote(1, 2, 3), "TypeError")
attempt(lambda: f(1), "TypeError")
print(ray.get(f.remote(1)), ray.get(f.remote(b=3, a=2)))
