"""An actor keeps its state, and runs its calls in order."""

import ray


@ray.remote
class Log:
    """A list that remembers."""

    def __init__(self, *items, name="log"):
        self.items = list(items)
        self.name = name

    def add(self, item):
        self.items.append(item)

    def read(self):
        return self.name, self.items


log = Log.remote(0, name="x")
for i in range(1, 5):
    log.add.remote(i)
print(ray.get(log.read.remote()))
print(ray.get(log.add.remote(ray.put(9))), ray.get(log.read.remote()))
other = Log.remote()
print(
    log == other,
    ray.get(ray.put(log)) == log,
    len({log, other}),
    isinstance(log, ray.actor.ActorHandle),
)
