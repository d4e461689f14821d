"""A supervisor actor makes workers of its own, gives them work, and survives their errors."""

import ray
from seen import attempt


@ray.remote
class Worker:
    def __init__(self, rank):
        self.rank = rank
        self.done = 0

    def run(self, x):
        if x == "bad":
            raise RuntimeError("bad work")
        self.done += 1
        return self.rank, x

    def count(self):
        return self.done


@ray.remote
class Supervisor:
    def __init__(self, n):
        self.workers = [Worker.remote(rank) for rank in range(n)]

    def work(self, items):
        refs = [self.workers[i % len(self.workers)].run.remote(x) for i, x in enumerate(items)]
        return ray.get(refs)

    def try_work(self, items):
        try:
            return self.work(items)
        except RuntimeError as error:
            return type(error).__mro__[-4].__name__, isinstance(error, ray.exceptions.RayTaskError)

    def handles(self):
        return self.workers


supervisor = Supervisor.remote(2)
print(ray.get(supervisor.work.remote(list("abc"))))
print(ray.get(supervisor.try_work.remote(["a", "bad"])))
attempt(lambda: ray.get(supervisor.work.remote(["bad"])), "RayTaskError", "RuntimeError")
workers = ray.get(supervisor.handles.remote())
print(ray.get([worker.count.remote() for worker in workers]))
print(ray.get(workers[1].run.remote("from outside")))
