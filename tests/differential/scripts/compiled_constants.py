"""Constants among the arguments."""

import ray
from ray.dag import InputNode


@ray.remote
class A:
    def f(self, a, b, c=0):
        return a, b, c


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind("constant", inp, c={"k": 1})
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(i)) for i in range(2)])
compiled.teardown()
