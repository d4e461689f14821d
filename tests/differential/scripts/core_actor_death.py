"""An actor that dies by itself, and one that leaves."""

import os

import ray
from seen import attempt


@ray.remote
class A:
    def die(self):
        os._exit(1)

    def leave(self):
        ray.actor.exit_actor()

    def f(self):
        return 1


for name in ("die", "leave"):
    a = A.remote()
    print(ray.get(a.f.remote()))
    attempt(lambda: ray.get(getattr(a, name).remote()), "ActorDiedError", "RayActorError")
    attempt(lambda: ray.get(a.f.remote()), "ActorDiedError", "RayActorError")
attempt(ray.actor.exit_actor, "TypeError")
