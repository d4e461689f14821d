"""`wait` sorts references into ready ones and others, in their order."""

import ray
from gate import Gate
from seen import attempt


@ray.remote
class Slow:
    def wait(self, gate):
        gate.wait()


slow, gate = Slow.remote(), Gate()
late = slow.wait.remote(gate)
quick = [ray.put(i) for i in range(3)]
ready, rest = ray.wait([quick[0], late, *quick[1:]], num_returns=3, timeout=20)
print(ready == quick, rest == [late])
print([len(part) for part in ray.wait([late], timeout=0)])
ready, rest = ray.wait(quick, num_returns=3)
print(ready == quick, rest)
print(ray.wait([]))
gate.open()
ready, rest = ray.wait([late, quick[0]], num_returns=2)
print(len(ready), rest)
attempt(lambda: ray.wait(quick[0]), "TypeError")
attempt(lambda: ray.wait([1]), "TypeError")
attempt(lambda: ray.wait([quick[0], quick[0]]), "ValueError")
attempt(lambda: ray.wait(quick, num_returns=4), "ValueError")
attempt(lambda: ray.wait(quick, num_returns=0), "ValueError")
attempt(lambda: ray.wait(quick, timeout=-1), "ValueError")
gate.remove()
