"""Teardown ends the actors if asked to."""

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
compiled.teardown(kill_actors=True)
attempt(lambda: ray.get(a.f.remote(1)), "ActorDiedError", "RayActorError")
