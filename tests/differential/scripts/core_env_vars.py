"""Environment variables of actors and tasks."""

import os

import ray
from ray.runtime_env import RuntimeEnv


@ray.remote(runtime_env=RuntimeEnv(env_vars={"SEEN_BY_ACTOR": "yes"}))
class A:
    def read(self):
        return os.environ.get("SEEN_BY_ACTOR"), os.environ.get("SEEN_BY_TASK")


@ray.remote
def read():
    return os.environ.get("SEEN_BY_TASK")


print(ray.get(A.remote().read.remote()))
print(ray.get(read.options(runtime_env={"env_vars": {"SEEN_BY_TASK": "1"}}).remote()))
print(os.environ.get("SEEN_BY_ACTOR"))
