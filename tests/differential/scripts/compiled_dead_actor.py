"""Compiling with an actor that is dead."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
ray.get(a.f.remote(1))
with InputNode() as inp:
    dag = a.f.bind(inp)
ray.kill(a)
attempt(lambda: dag.experimental_compile(), "ActorDiedError", "RayActorError")
