"""What nodes refuse, and what comes out of `get`."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return 10 / x


a = A.remote()
with InputNode() as inp:
    node = a.f.bind(inp)
attempt(lambda: ray.get(node.execute(0)), "ZeroDivisionError", "RayTaskError")
print(ray.get(node.execute(5)))
attempt(lambda: node.remote(1), "AttributeError")
attempt(lambda: node.bind(1), "AttributeError")
attempt(lambda: a.f.bind(), "TypeError")
attempt(lambda: a.f.bind(1, 2), "TypeError")
attempt(lambda: a.g.bind(1), "AttributeError")
