"""A result that is late."""

import ray
from gate import Gate
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def wait(self, gate):
        if gate:
            gate.wait()
        return "waited"


a = A.remote()
with InputNode() as inp:
    dag = a.wait.bind(inp)
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(None), timeout=20))
gate = Gate()
ref = compiled.execute(gate)
attempt(
    lambda: ray.get(ref, timeout=0.05),
    "RayChannelTimeoutError",
    "RayChannelError",
    "TimeoutError",
    "RayError",
)
gate.open()
compiled.teardown()
gate.remove()
