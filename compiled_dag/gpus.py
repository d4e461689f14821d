"""What is known of the GPUs of actors: nothing, until one has the resources it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.ir import Gpus

if TYPE_CHECKING:
    from compiled_dag.host import Actor


def physical_gpus(actor: Actor) -> tuple[str, ...] | None:
    """Return the names of an actor's devices: none where they are fake, None if not known yet."""
    found = tuple(actor.physical_gpus)
    if not found and actor.num_gpus and actor.host.has_physical_gpus():
        return None
    return found


def gpus_of(actor: Actor) -> Gpus:
    """Return an actor's GPUs, as data."""
    return Gpus(logical=actor.num_gpus, physical=physical_gpus(actor))
