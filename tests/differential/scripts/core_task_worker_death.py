"""The death of a worker ends its task with an error of its own, if there are no retries."""

import os

import ray
from seen import attempt


@ray.remote(max_retries=0)
def die():
    os._exit(1)


@ray.remote
def fine():
    return "fine"


attempt(lambda: ray.get(die.remote()), "WorkerCrashedError", "RayError")
print(ray.get(fine.remote()))
