"""A task draws and executes a graph of its own."""

import ray


@ray.remote
class A:
    def f(self, x):
        return x + 1


@ray.remote
def draw(actor):
    return ray.get(actor.f.bind(1).execute())


print(ray.get(draw.remote(A.remote())))
