"""What cannot be pickled is refused at the call."""

import threading

import ray
from seen import attempt


@ray.remote
def f(x):
    return x


@ray.remote
def give():
    return threading.Lock()


attempt(lambda: f.remote(threading.Lock()), "TypeError")
attempt(lambda: ray.put({"a": [threading.Lock()]}), "TypeError")
attempt(lambda: ray.get(give.remote()), "TypeError", "RayTaskError")
print(ray.get(f.remote(1)))
