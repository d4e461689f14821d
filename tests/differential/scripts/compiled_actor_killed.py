"""An actor killed while the graph is idle.

Departs: E9
"""

import contextlib

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(1)))
ray.kill(a)
with contextlib.suppress(ray.exceptions.RayActorError):
    ray.get(a.f.remote(0))  # the death is known once this raises
attempt(lambda: ray.get(compiled.execute(2)), "ActorDiedError", "RayActorError", "RayChannelError")
compiled.teardown()
