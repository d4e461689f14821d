"""A killed actor's calls fail, queued ones too."""

import time

import ray
from seen import attempt


@ray.remote
class A:
    def f(self):
        return 1

    def sleep(self):
        time.sleep(60)


a = A.remote()
print(ray.get(a.f.remote()))
running, queued = a.sleep.remote(), a.f.remote()
ray.kill(a)
for ref in (running, queued):
    attempt(lambda ref=ref: ray.get(ref), "ActorDiedError", "RayActorError")
attempt(lambda: ray.get(a.f.remote()), "ActorDiedError", "RayActorError")
attempt(lambda: ray.kill(3), "ValueError")
ray.kill(a)
