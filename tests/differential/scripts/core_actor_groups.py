"""Concurrency groups."""

import threading

import ray


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Worker:
    def __init__(self):
        self.barrier = threading.Barrier(2)

    @ray.method(concurrency_group="io")
    def meet(self):
        return self.barrier.wait(timeout=20) in (0, 1)

    @ray.method(concurrency_group="compute")
    def compute(self):
        return 7

    def plain(self):
        return 8


worker = Worker.remote()
print(ray.get([worker.meet.remote(), worker.meet.remote()]))
print(ray.get([worker.compute.remote(), worker.plain.remote()]))
print(ray.get(worker.plain.options(concurrency_group="io").remote()))
