"""Nodes inside lists, and as keyword arguments.

Departs: C11
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def one(self, x):
        return x

    def total(self, items=(), extra=0):
        return sum(items) + extra


def run(draw):
    a, b = A.remote(), A.remote()
    with InputNode() as inp:
        dag = draw(a, b, inp)
    compiled = dag.experimental_compile()
    value = ray.get(compiled.execute(5))
    compiled.teardown()
    return value


attempt(lambda: run(lambda a, b, inp: b.total.bind([a.one.bind(inp), 1])), "ValueError")
attempt(lambda: run(lambda a, b, inp: b.total.bind([1], extra=a.one.bind(inp))), "ValueError")
