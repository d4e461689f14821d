"""An actor ends with its last handle, and its name is free again."""

import time

import ray


@ray.remote
class A:
    def f(self):
        return 1


a = A.options(name="last_handle").remote()
ref = a.f.remote()
del a
print(ray.get(ref))
for _ in range(200):
    try:
        ray.get_actor("last_handle")
    except ValueError:
        break
    time.sleep(0.05)
b = A.options(name="last_handle").remote()
print(ray.get(b.f.remote()))
