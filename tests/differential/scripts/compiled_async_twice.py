"""Awaiting a result again.

Departs: X26
"""

import asyncio

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()


async def main():
    with InputNode() as inp:
        dag = a.f.bind(inp)
    compiled = dag.experimental_compile(enable_asyncio=True)
    future = await compiled.execute_async(1)
    print(await future)
    try:
        print(await future)
    except ValueError:
        print("raises ValueError")
    compiled.teardown()


asyncio.run(main())
