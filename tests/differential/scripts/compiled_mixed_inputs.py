"""The whole input and a part of it in one graph are refused."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x, y):
        return x, y


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp, inp[0])
attempt(lambda: dag.experimental_compile(), "ValueError")
