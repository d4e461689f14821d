"""Defaults come from the context."""

import ray
from gate import Gate
from ray.dag import DAGContext, InputNode
from seen import attempt


@ray.remote
class A:
    def wait(self, gate):
        gate.wait()


context = DAGContext.get_current()
before = context.get_timeout
context.get_timeout = 0.1
a = A.remote()
with InputNode() as inp:
    dag = a.wait.bind(inp)
compiled = dag.experimental_compile()
gate = Gate()
ref = compiled.execute(gate)
attempt(lambda: ray.get(ref), "RayChannelTimeoutError")
context.get_timeout = before
gate.open()
compiled.teardown()
gate.remove()
