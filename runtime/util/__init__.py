"""What is built on actors and tasks alone, by Ray's module names.

`actor_pool`: a few actors that share out many calls. `completion`: results as they come. `queue`: a
queue in an actor, for any number of producers and consumers. `state`: what there is in the session,
and what has happened.
"""

from runtime.util.actor_pool import ActorPool
from runtime.util.completion import as_completed, map_unordered

__all__ = ["ActorPool", "as_completed", "map_unordered"]
