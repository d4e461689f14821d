"""A node that takes no other node's value.

Departs: C12
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def one(self):
        return 1

    def add(self, a, b):
        return a + b


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.add.bind(inp, a.one.bind())


def run():
    compiled = dag.experimental_compile()
    value = ray.get(compiled.execute(5))
    compiled.teardown()
    return value


attempt(run, "ValueError")
