"""What an input may be: one value, several, by name, an object with attributes, nothing."""

from dataclasses import dataclass

import ray
from ray.dag import InputNode
from seen import attempt


@dataclass
class Config:
    size: int
    name: str


@ray.remote
def show(*args, **kwargs):
    return [*args, *sorted(kwargs.items())]


with InputNode() as inp:
    by_position = show.bind(inp[1], inp[0])
print(ray.get(by_position.execute("a", "b")))
print(ray.get(by_position.execute(["x", "y"])))
attempt(lambda: ray.get(by_position.execute("a", b=1)), "IndexError", "TypeError")
with InputNode() as inp:
    by_name = show.bind(inp.size, named=inp.name)
print(ray.get(by_name.execute(Config(3, "three"))))
print(ray.get(by_name.execute(size=4, name="four", unused=True)))
with InputNode() as inp:
    mixed = show.bind(inp[0], inp["key"], 5, key=inp["key"])
print(ray.get(mixed.execute("first", key="k")))
attempt(lambda: ray.get(mixed.execute("first")), "KeyError", "TypeError")
with InputNode() as inp:
    nested = show.bind({"deep": (inp, 1)})
print(ray.get(nested.execute(9)))
constant = show.bind(1, 2)
print(ray.get(constant.execute()))
attempt(lambda: InputNode("name"), "ValueError")
