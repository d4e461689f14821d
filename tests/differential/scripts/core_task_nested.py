"""A task starts tasks, and waits for them."""

import ray


@ray.remote
def fib(n):
    if n < 2:
        return n
    return sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))


@ray.remote
def later(n):
    return fib.remote(n)


print(ray.get(fib.remote(4)))
print(ray.get(ray.get(later.remote(3))))
