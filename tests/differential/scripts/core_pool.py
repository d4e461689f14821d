"""A pool of actors."""

import ray
from ray.util import ActorPool


@ray.remote
class Square:
    def of(self, x):
        return x * x


pool = ActorPool([Square.remote() for _ in range(2)])
print(list(pool.map(lambda actor, x: actor.of.remote(x), range(6))))
print(sorted(pool.map_unordered(lambda actor, x: actor.of.remote(x), range(4))))
pool.submit(lambda actor, x: actor.of.remote(x), 7)
print(pool.has_next(), pool.get_next(), pool.has_next())
