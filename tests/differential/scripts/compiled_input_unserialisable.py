"""An input that cannot be sent: nothing was submitted."""

import threading

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
attempt(lambda: compiled.execute(threading.Lock()), "TypeError")
print(ray.get(compiled.execute(1)))
compiled.teardown()
