"""What is built on actors and tasks alone, by Ray's module names.

`actor_pool`: a few actors that share out many calls. `queue`: a queue in an actor, for any number
of producers and consumers.
"""

from runtime.util.actor_pool import ActorPool

__all__ = ["ActorPool"]
