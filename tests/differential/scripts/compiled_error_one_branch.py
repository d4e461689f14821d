"""One of two outputs fails.

Departs: E2
"""

import ray
from ray.dag import InputNode, MultiOutputNode
from seen import attempt


@ray.remote
class A:
    def good(self, x):
        return x

    def bad(self, x):
        raise ValueError


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = MultiOutputNode([a.good.bind(inp), b.bad.bind(inp)])
compiled = dag.experimental_compile()
attempt(lambda: ray.get(compiled.execute(1)), "ValueError", "RayTaskError")
good, bad = compiled.execute(2)
attempt(lambda: ray.get(good), "ValueError")
attempt(lambda: ray.get(bad), "ValueError")
compiled.teardown()
