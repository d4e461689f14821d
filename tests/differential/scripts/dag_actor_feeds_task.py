"""Actors and tasks in one graph: state, tasks over what actors return, handles as arguments."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class Store:
    def __init__(self, name, values=()):
        self.name = name
        self.values = list(values)

    def push(self, value):
        self.values.append(value)
        return len(self.values)

    def read(self, _after=None):
        return self.name, list(self.values)


@ray.remote
def square(x):
    return x * x


@ray.remote
def push_into(store, value):
    return ray.get(store.push.remote(value))


live = Store.remote("live", [0])
with InputNode() as inp:
    squared = square.bind(inp)
    count = live.push.bind(squared)
    own = Store.bind("own", values=[7])
    via = push_into.bind(own, squared)
    dag = MultiOutputNode([count, via, live.read.bind(count)])
for n in (2, 3):
    print(ray.get(dag.execute(n)))
print(ray.get(live.read.remote()))
print(ray.get(push_into.remote(live, "last")), ray.get(live.read.remote()))
