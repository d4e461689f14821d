"""Handles travel to tasks and actors."""

import ray


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1
        return self.n


@ray.remote
def use(counter, times):
    return max(ray.get([counter.add.remote() for _ in range(times)]))


@ray.remote
class User:
    def __init__(self, counters):
        self.counters = counters

    def use(self):
        return ray.get([counter.add.remote() for counter in self.counters])


counter = Counter.remote()
print(ray.get(use.remote(counter, 3)))
user = User.remote([counter, counter])
print(sorted(ray.get(user.use.remote())))
print(ray.get(ray.put([counter])) == [counter])
