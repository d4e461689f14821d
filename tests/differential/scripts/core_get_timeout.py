"""A late value: the time-out, and then the value all the same."""

import ray
from gate import Gate
from seen import attempt


@ray.remote
class A:
    def wait(self, gate):
        gate.wait()
        return "open"


a, gate = A.remote(), Gate()
ref = a.wait.remote(gate)
attempt(lambda: ray.get(ref, timeout=0.05), "GetTimeoutError", "TimeoutError", "RayError")
attempt(lambda: ray.get([ray.put(1), ref], timeout=0), "GetTimeoutError")
gate.open()
print(ray.get(ref), ray.get(ref, timeout=0))
gate.remove()
