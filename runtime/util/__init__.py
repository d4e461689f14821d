"""What is built on actors and tasks alone, by Ray's module names.

`actor_pool`: a few actors that share out many calls. `queue`: a queue in an actor, for any number
of producers and consumers. `state`: what there is in the session, and what has happened.
"""

from runtime.util.actor_pool import ActorPool

__all__ = ["ActorPool"]
