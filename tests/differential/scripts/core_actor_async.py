"""Coroutine methods overlap."""

import asyncio

import ray
from seen import attempt


@ray.remote
class Meeting:
    def __init__(self):
        self.here = asyncio.Event()

    async def wait(self):
        await self.here.wait()
        return "met"

    async def arrive(self):
        self.here.set()

    async def fail(self):
        await asyncio.sleep(0)
        raise KeyError("x")


meeting = Meeting.remote()
waiting = [meeting.wait.remote() for _ in range(3)]
ray.get(meeting.arrive.remote())
print(ray.get(waiting))
attempt(lambda: ray.get(meeting.fail.remote()), "RayTaskError", "KeyError")


async def main():
    return await asyncio.gather(*(meeting.wait.remote() for _ in range(2)))


print(asyncio.run(main()))
