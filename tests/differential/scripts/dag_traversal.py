"""Walking over a graph."""

import ray
from ray.dag import InputNode


@ray.remote
def f(x):
    return x


@ray.remote
def g(a, b):
    return a, b


with InputNode() as inp:
    dag = g.bind(f.bind(inp), f.bind(inp))
kinds = []


def note(node):
    kinds.append(type(node).__name__)
    return node


dag.apply_recursive(note)
print(sorted(kinds), kinds[-1])
