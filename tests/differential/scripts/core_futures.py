"""References as futures."""

import asyncio
import concurrent.futures

import ray


@ray.remote
def f(x):
    return x + 1


@ray.remote
def fail():
    raise ValueError


future = f.remote(1).future()
print(isinstance(future, concurrent.futures.Future), future.result(20))


async def main():
    print(await f.remote(2), await asyncio.gather(f.remote(3), f.remote(4)))
    try:
        await fail.remote()
    except ray.exceptions.RayTaskError as error:
        print("RayTaskError", isinstance(error, ValueError))
    done, rest = await asyncio.wait([asyncio.ensure_future(f.remote(5))])
    print(len(done), len(rest))


asyncio.run(main())
