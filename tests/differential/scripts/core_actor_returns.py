"""Several returns, generators, options of methods."""

import ray
from seen import attempt


@ray.remote
class A:
    @ray.method(num_returns=2)
    def pair(self):
        return 1, 2

    def one(self):
        return 1, 2, 3

    def stream(self, n):
        for i in range(n):
            yield 10 * i


a = A.remote()
x, y = a.pair.remote()
print(ray.get(x), ray.get(y))
print(ray.get(a.one.options(num_returns=3).remote()))
print([ray.get(ref) for ref in a.stream.options(num_returns="streaming").remote(3)])
print(callable(ray.method()))
attempt(lambda: ray.method(nonsense=1), "AssertionError")
