"""An actor with restarts comes back without its state."""

import os

import ray
from seen import attempt


@ray.remote(max_restarts=1, max_task_retries=-1)
class A:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1
        return self.n

    def pid(self):
        return os.getpid()

    @ray.method(max_task_retries=0)
    def die(self):
        os._exit(1)


a = A.remote()
print(ray.get([a.add.remote(), a.add.remote()]))
first = ray.get(a.pid.remote())
attempt(lambda: ray.get(a.die.remote()), "RayActorError")
print(ray.get(a.add.remote()), ray.get(a.pid.remote()) != first)
attempt(lambda: ray.get(a.die.remote()), "RayActorError")
attempt(lambda: ray.get(a.add.remote()), "ActorDiedError")
