"""Functions take their globals, closures and modules with them."""

import math

import ray

FACTOR = 3


def helper(x):
    return x * FACTOR


def make(offset):
    @ray.remote
    def inner(x):
        return helper(x) + offset + math.floor(0.5)

    return inner


class Point:
    def __init__(self, x):
        self.x = x

    def shifted(self, n):
        return Point(self.x + n)


@ray.remote
def shift(point):
    return point.shifted(FACTOR)


print(ray.get(make(10).remote(2)))
print(ray.get(shift.remote(Point(1))).x)
print(ray.get(ray.remote(lambda x: x + FACTOR).remote(1)))
