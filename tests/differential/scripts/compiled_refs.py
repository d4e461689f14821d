"""References cannot be copied or sent."""

import copy
import pickle

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


@ray.remote
def task(x):
    return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
ref = compiled.execute(1)
attempt(lambda: copy.copy(ref), "ValueError")
attempt(lambda: copy.deepcopy(ref), "ValueError")
attempt(lambda: pickle.dumps(ref), "ValueError")
attempt(lambda: ray.get([ref, ray.put(1)]), "ValueError", "TypeError")
attempt(lambda: ray.get([ray.put(1), ref]), "ValueError", "TypeError")
print(isinstance(ref, ray.ObjectRef), type(ref).__name__, ray.get(ref))
compiled.teardown()
