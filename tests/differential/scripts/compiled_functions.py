"""Functions in a compiled graph.

Departs: C13
"""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
def double(x):
    return 2 * x


def run():
    with InputNode() as inp:
        dag = double.bind(double.bind(inp))
    compiled = dag.experimental_compile()
    values = [ray.get(compiled.execute(i)) for i in range(3)]
    compiled.teardown()
    return values


attempt(run, "NotImplementedError", "ValueError")
