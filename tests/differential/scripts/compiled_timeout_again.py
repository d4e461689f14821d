"""A result that was late, got again.

Departs: X11
"""

import ray
from gate import Gate
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def wait(self, gate):
        gate.wait()
        return "waited"


a = A.remote()
with InputNode() as inp:
    dag = a.wait.bind(inp)
compiled = dag.experimental_compile()
gate = Gate()
ref = compiled.execute(gate)
attempt(lambda: ray.get(ref, timeout=0.05), "RayChannelTimeoutError")
gate.open()
attempt(lambda: ray.get(ref, timeout=20), "RayChannelTimeoutError", "RayChannelError", "ValueError")
compiled.teardown()
gate.remove()
