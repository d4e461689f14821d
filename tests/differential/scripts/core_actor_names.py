"""Actors with names, in namespaces."""

import ray
from seen import attempt


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1
        return self.n


counter = Counter.options(name="names_counter").remote()
ray.get(counter.add.remote())
print(ray.get(ray.get_actor("names_counter").add.remote()))
again = Counter.options(name="names_counter", get_if_exists=True).remote()
print(again == counter, ray.get(again.add.remote()))
attempt(
    lambda: Counter.options(name="names_counter").remote(),
    "ActorAlreadyExistsError",
    "ValueError",
    "RayError",
)
attempt(lambda: ray.get_actor("names_nobody"), "ValueError")
attempt(lambda: ray.get_actor(""), "ValueError")
other = Counter.options(name="names_counter", namespace="names_elsewhere").remote()
print(ray.get(other.add.remote()), other == counter)
print(ray.get_actor("names_counter", namespace="names_elsewhere") == other)


@ray.remote
def use():
    return ray.get(ray.get_actor("names_counter").add.remote())


print(ray.get(use.remote()))
