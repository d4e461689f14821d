"""An actor dies in the middle of a graph.

Departs: E9
"""

import os

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        if x == 2:
            os._exit(1)
        return x


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.f.bind(a.f.bind(inp))
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(1)))
attempt(lambda: ray.get(compiled.execute(2)), "ActorDiedError", "RayActorError")
attempt(lambda: ray.get(compiled.execute(3)), "ActorDiedError", "RayActorError", "RayChannelError")
compiled.teardown()
print(ray.get(b.f.remote(4)))
attempt(lambda: ray.get(a.f.remote(4)), "RayActorError")
