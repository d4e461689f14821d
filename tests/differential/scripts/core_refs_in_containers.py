"""A reference inside a container arrives as a reference."""

import ray


@ray.remote
def kinds(direct, inside):
    return direct, [isinstance(ref, ray.ObjectRef) for ref in inside], ray.get(inside)


@ray.remote
def give():
    return [ray.put(1), ray.put(2)]


print(ray.get(kinds.remote(ray.put(1), [ray.put(2), ray.put(3)])))
print(ray.get(ray.get(give.remote())))
ref = ray.put(5)
print(len({ref, ray.get(ray.put([ref]))[0]}))
