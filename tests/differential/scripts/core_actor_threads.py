"""Several calls at once on threads."""

import threading

import ray


@ray.remote(max_concurrency=2)
class Pair:
    def __init__(self):
        self.barrier = threading.Barrier(2)

    def meet(self):
        return self.barrier.wait(timeout=20) in (0, 1)


pair = Pair.remote()
print(ray.get([pair.meet.remote(), pair.meet.remote()]))
