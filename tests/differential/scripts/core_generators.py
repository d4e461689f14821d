"""Generators that are waited for, and results as they come."""

import ray
from gate import Gate
from seen import attempt

gate = Gate()


@ray.remote
def letters():
    yield "a"
    gate.wait()
    yield "b"


@ray.remote
def fails():
    yield 1
    raise ValueError("no more")


@ray.remote
def echo(value):
    return value


first = letters.remote()
ready, rest = ray.wait([first], timeout=60)
print(ready == [first], rest, ray.get(next(first)))
one = echo.remote(1)
ready, rest = ray.wait([first, one], timeout=60)
print(ready == [one], rest == [first], first.is_finished(), first.next_ready())
gate.open()
print(ray.wait([first], timeout=60)[0] == [first], ray.get(next(first)))
print(ray.wait([first], timeout=60)[0] == [first])
attempt(lambda: next(first), "StopIteration")
print(first.is_finished(), ray.wait([first], timeout=60)[0] == [first])

second = fails.remote()
print(ray.get(next(second)), ray.wait([second], timeout=60)[0] == [second])
attempt(lambda: ray.get(next(second)), "RayTaskError", "ValueError")
attempt(lambda: next(second), "StopIteration")
attempt(lambda: ray.get(echo.remote(second)), "TypeError")

print(sorted(ray.util.as_completed([echo.remote(i) for i in range(25)], chunk_size=4)))
print(list(ray.util.as_completed([])))
print(sorted(ray.util.map_unordered(echo, range(25), backpressure_size=5, chunk_size=2)))
refs = list(ray.util.map_unordered(echo, "xyz", yield_obj_refs=True))
print(sorted(ray.get(refs)))
gate.remove()
