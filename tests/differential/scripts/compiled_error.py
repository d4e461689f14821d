"""An exception is a value: the next execution works."""

import ray
from ray.dag import InputNode
from seen import attempt


class Odd(Exception):
    pass


@ray.remote
class A:
    def f(self, x):
        if x == 1:
            raise ValueError("one")
        if x == 2:
            raise Odd("two")
        return x


@ray.remote
class B:
    def g(self, x):
        return x * 10


a, b = A.remote(), B.remote()
with InputNode() as inp:
    dag = b.g.bind(a.f.bind(inp))
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(5)))
attempt(lambda: ray.get(compiled.execute(1)), "ValueError", "RayTaskError", "RayError")
attempt(lambda: ray.get(compiled.execute(2)), "RayTaskError", "RayActorError", "RayChannelError")
try:
    ray.get(compiled.execute(2))
except Odd:
    print("caught as Odd")
print(ray.get(compiled.execute(6)))
compiled.teardown()
print(ray.get(a.f.remote(7)))
