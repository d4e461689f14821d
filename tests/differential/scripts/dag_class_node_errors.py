"""What class nodes refuse."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def __init__(self, x=0):
        self.x = x

    def f(self):
        return self.x


attempt(lambda: A.bind().nothing, "AttributeError")
attempt(lambda: A.bind().remote(), "AttributeError")
attempt(lambda: A.bind().bind(), "AttributeError")
attempt(lambda: A.bind().f.remote(), "AttributeError")
with InputNode() as inp:
    attempt(lambda: A.bind(inp), "ValueError")
print(ray.get(A.bind(2).f.bind().execute()))
