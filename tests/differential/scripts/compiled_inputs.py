"""Several inputs, by position and by name."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def join(self, *args):
        return args


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.join.bind(a.join.bind(inp[0], inp.name), inp[1])
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(1, 2, name="n")))
attempt(lambda: compiled.execute(1, name="n"), "ValueError")
attempt(lambda: compiled.execute(1, 2, 3, name="n"), "ValueError")
attempt(lambda: compiled.execute(1, 2), "ValueError")
print(ray.get(compiled.execute(3, 4, name="m")))
compiled.teardown()
