"""Executing from an event loop."""

import asyncio

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class A:
    def f(self, x):
        if x == 7:
            raise ValueError
        return x + 1


a, b = A.remote(), A.remote()


async def main():
    with InputNode() as inp:
        dag = b.f.bind(a.f.bind(inp))
    compiled = dag.experimental_compile(enable_asyncio=True)
    future = await compiled.execute_async(1)
    print(await future)
    futures = [await compiled.execute_async(i) for i in range(4)]
    print(await asyncio.gather(*futures))
    futures = [await compiled.execute_async(i) for i in range(3)]
    print([await future for future in reversed(futures)])
    try:
        await (await compiled.execute_async(7))
    except ValueError as error:
        print("raises ValueError", isinstance(error, ray.exceptions.RayTaskError))
    print(await (await compiled.execute_async(2)))
    compiled.teardown()


async def several():
    with InputNode() as inp:
        dag = MultiOutputNode([a.f.bind(inp), b.f.bind(inp)])
    compiled = dag.experimental_compile(enable_asyncio=True)
    futures = await compiled.execute_async(1)
    print(type(futures).__name__, await asyncio.gather(*futures))
    compiled.teardown()


asyncio.run(main())
asyncio.run(several())
