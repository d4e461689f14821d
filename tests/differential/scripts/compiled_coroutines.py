"""Coroutine methods in a graph.

Departs: C16
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    async def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)


def run():
    compiled = dag.experimental_compile()
    try:
        return ray.get(compiled.execute(1))
    finally:
        compiled.teardown()


attempt(run, "ValueError", "TypeError")
