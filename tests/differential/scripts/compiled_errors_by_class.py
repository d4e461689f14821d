"""Exceptions of ones own out of a graph: caught by class, with attributes; then it goes on."""

import ray
from ray.dag import InputNode, MultiOutputNode
from seen import attempt


class Rejected(ValueError):
    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self):
        return Rejected, (self.code,)


@ray.remote
class Checker:
    def check(self, x):
        if x < 0:
            raise Rejected(x)
        return x

    def double(self, x):
        return 2 * x


one, two = Checker.remote(), Checker.remote()
with InputNode() as inp:
    checked = one.check.bind(inp)
    dag = two.double.bind(checked)
compiled = dag.experimental_compile()
for value in (1, -2, 3, -4, 5):
    ref = compiled.execute(value)
    try:
        print(ray.get(ref))
    except Rejected as error:
        print("rejected", error.code, isinstance(error, ray.exceptions.RayTaskError))
compiled.teardown()

with InputNode() as inp:
    dag = MultiOutputNode([one.check.bind(inp), two.check.bind(inp)])
compiled = dag.experimental_compile()
attempt(lambda: ray.get(compiled.execute(-1)), "RayTaskError", "ValueError")
print(ray.get(compiled.execute(1)))
compiled.teardown()
