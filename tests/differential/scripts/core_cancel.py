"""A task that waits for its turn, and one that runs, can be cancelled."""

import time

import ray
from gate import Gate
from seen import attempt


@ray.remote
class Signal:
    def f(self):
        return 1


@ray.remote
def sleep(s, begun=None):
    if begun is not None:
        begun.open()
    for _ in range(int(s * 100)):
        time.sleep(0.01)
    return "slept"


begun = Gate()
long = sleep.options(num_cpus=4).remote(30, begun)
blocked = sleep.remote(0)
ray.cancel(blocked)
attempt(lambda: ray.get(blocked), "TaskCancelledError", "RayError")
begun.wait()
ray.cancel(long)
attempt(lambda: ray.get(long), "TaskCancelledError")
signal = Signal.remote()
attempt(lambda: ray.cancel(signal.f.remote(), force=True), "ValueError")
attempt(lambda: ray.cancel(3), "TypeError")
done = sleep.remote(0)
ray.get(done)
ray.cancel(done)
print(ray.get(done))
begun.remove()
