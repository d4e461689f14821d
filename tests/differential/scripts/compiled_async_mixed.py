"""execute and execute_async on one graph.

Departs: X7
"""

import asyncio

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


async def main():
    return await (await compiled.execute_async(2))


attempt(lambda: asyncio.run(main()), "ValueError")
compiled.teardown()
