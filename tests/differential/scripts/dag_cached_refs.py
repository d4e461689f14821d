"""References of the last execution."""

import asyncio

import ray
from ray.dag import InputNode


@ray.remote
def f(x):
    return x + 1


with InputNode() as inp:
    first = f.bind(inp)
    dag = f.bind(first)
ref = dag.execute(1, _ray_cache_refs=True)
print(ray.get(ref))
refs = asyncio.run(dag.get_object_refs_from_last_execute())
print(sorted(ray.get([r for r in refs.values() if isinstance(r, ray.ObjectRef)])))
dag.clear_cache()
