"""Two inputs in one graph are refused."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x, y):
        return x, y


a = A.remote()
with InputNode() as one, InputNode() as two:
    dag = a.f.bind(one, two)
attempt(lambda: dag.experimental_compile(), "AssertionError")
