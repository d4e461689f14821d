"""A class node as an argument arrives as a handle."""

import ray


@ray.remote
class Store:
    def __init__(self, value):
        self.value = value

    def read(self):
        return self.value


@ray.remote
def use(store):
    return ray.get(store.read.remote())


@ray.remote
class Reader:
    def __init__(self, store):
        self.store = store

    def read(self):
        return ray.get(self.store.read.remote())


print(ray.get(use.bind(Store.bind(3)).execute()))
print(ray.get(Reader.bind(Store.bind(4)).read.bind().execute()))
