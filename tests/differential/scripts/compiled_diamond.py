"""One value, two readers, joined again."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def inc(self, x):
        return x + 1

    def dec(self, x):
        return x - 1

    def join(self, a, b, c):
        return a, b, c


a, b, c, d = [A.remote() for _ in range(4)]
with InputNode() as inp:
    top = a.inc.bind(inp)
    dag = d.join.bind(b.inc.bind(top), c.dec.bind(top), top)
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(i)) for i in range(3)])
compiled.teardown()
