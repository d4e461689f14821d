"""A constructor that raises: every call tells."""

import ray
from seen import attempt


@ray.remote
class Broken:
    def __init__(self):
        raise ValueError("no")

    def f(self):
        return 1


broken = Broken.remote()
for _ in range(2):
    attempt(lambda: ray.get(broken.f.remote()), "ActorDiedError", "RayActorError", "RayError")
