"""Several returns, none, and a generator's."""

import ray
from seen import attempt


@ray.remote(num_returns=2)
def pair():
    return 1, 2


@ray.remote(num_returns=0)
def nothing():
    pass


@ray.remote
def three():
    for letter in "abc":
        yield letter.upper()


@ray.remote(num_returns=2)
def wrong():
    return 1, 2, 3


a, b = pair.remote()
print(ray.get([b, a]), nothing.remote())
print([ray.get(ref) for ref in three.remote()])
c, d = pair.options(num_returns=2).remote()
print(ray.get(c), ray.get(d))
attempt(lambda: ray.get(wrong.remote()[0]), "RayTaskError", "ValueError")
