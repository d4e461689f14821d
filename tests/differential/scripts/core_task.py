"""Functions become tasks; references become values."""

import ray


@ray.remote
def square(x):
    return x * x


@ray.remote
def total(a, b, scale=1):
    return (a + b) * scale


first = square.remote(3)
print(type(first) is ray.ObjectRef, ray.get(first))
print(ray.get([square.remote(i) for i in range(5)]))
print(ray.get(total.remote(first, square.remote(4), scale=2)))
print(ray.get(total.options(num_cpus=1, name="sum").remote(1, 2)))
