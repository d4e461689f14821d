"""A tree of functions, executed as it is."""

import ray
from ray.dag import InputNode


@ray.remote
def double(x):
    return 2 * x


@ray.remote
def add(a, b):
    return a + b


print(ray.get(add.bind(double.bind(1), double.bind(2)).execute()))
with InputNode() as inp:
    dag = add.bind(double.bind(inp), inp)
print([ray.get(dag.execute(x)) for x in range(3)])
