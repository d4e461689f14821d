"""An input that nobody uses is refused."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp[0])
    unused = inp[1]
attempt(lambda: dag.experimental_compile(), "ValueError")
