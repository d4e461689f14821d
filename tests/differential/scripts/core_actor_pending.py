"""Too many queued calls are refused."""

import ray
from gate import Gate
from seen import attempt


@ray.remote(max_pending_calls=2)
class Slow:
    def wait(self, gate=None):
        if gate:
            gate.wait()
        return "waited"


slow, gate = Slow.remote(), Gate()
ray.get(slow.wait.remote())
refs = [slow.wait.remote(gate)]


def fill():
    for _ in range(5):
        refs.append(slow.wait.remote())


attempt(fill, "PendingCallsLimitExceeded", "RayError")
gate.open()
print(ray.get(refs[0]))
gate.remove()
