"""A detached actor outlives its handle."""

import gc

import ray
from seen import attempt


@ray.remote
class A:
    def f(self):
        return 1


A.options(name="detached_a", lifetime="detached").remote()
gc.collect()
again = ray.get_actor("detached_a")
print(ray.get(again.f.remote()))
ray.kill(again)
attempt(lambda: ray.get(again.f.remote()), "RayActorError")
