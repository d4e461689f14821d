"""A graph without an input is refused."""

import ray
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


attempt(lambda: A.remote().f.bind(1).experimental_compile(), "ValueError")
