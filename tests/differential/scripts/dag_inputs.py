"""Several inputs: by position, by name, as attributes of one object."""

import ray
from ray.dag import InputNode
from seen import attempt


class Request:
    def __init__(self):
        self.text = "hello"


@ray.remote
class A:
    def join(self, *args):
        return args


a = A.remote()
with InputNode() as inp:
    dag = a.join.bind(inp[0], inp[1], inp.name, inp["key"])
print(ray.get(dag.execute(1, 2, name="n", key="k")))
with InputNode() as inp:
    dag = a.join.bind(inp.text)
print(ray.get(dag.execute(Request())))
with InputNode() as inp:
    dag = a.join.bind(inp["x"], inp["y"])
print(ray.get(dag.execute({"x": 1, "y": 2})))
with InputNode() as inp:
    dag = a.join.bind(inp[0], inp[2])
print(ray.get(dag.execute([5, 6, 7])))
attempt(lambda: InputNode(1), "ValueError")
attempt(lambda: inp[1.5], "AssertionError")
attempt(lambda: a.join.bind(InputNode()).execute(1), "AssertionError")
