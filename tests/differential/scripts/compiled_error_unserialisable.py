"""A result that cannot be sent.

Departs: E3
"""

import threading

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return threading.Lock() if x else "fine"


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(0)))
attempt(lambda: ray.get(compiled.execute(1)), "TypeError", "RayTaskError")
attempt(lambda: ray.get(compiled.execute(0)), "RayChannelError", "RayError")
compiled.teardown()
