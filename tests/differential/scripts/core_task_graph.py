"""Tasks that depend on tasks form a tree without waiting in between."""

import ray


@ray.remote
def leaf(i):
    return [i]


@ray.remote
def merge(left, right):
    return left + right


refs = [leaf.remote(i) for i in range(8)]
while len(refs) > 1:
    refs = [merge.remote(a, b) for a, b in zip(refs[::2], refs[1::2], strict=True)]
print(ray.get(refs[0]))
