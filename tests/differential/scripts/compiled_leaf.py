"""A result that nobody uses is refused."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a, b = A.remote(), A.remote()
with InputNode() as inp:
    used = a.f.bind(inp)
    unused = b.f.bind(used)
attempt(lambda: used.experimental_compile(), "ValueError")
