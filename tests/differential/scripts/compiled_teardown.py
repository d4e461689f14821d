"""After teardown the graph is closed, and the actors are usable."""

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
print(ray.get(compiled.execute(1)), compiled.is_teardown)
compiled.teardown()
compiled.teardown()
print(compiled.is_teardown)
attempt(lambda: compiled.execute(2), "RayChannelError", "RayError")
print(ray.get(a.f.remote(3)))
