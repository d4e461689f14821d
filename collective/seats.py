"""Actors that have asked for one name of a group, and wait for the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compiled_dag.errors import CollectiveMismatchError, CollectiveTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collective.eager_group import EagerGroup
    from compiled_dag.host import ActorId


@dataclass(slots=True, kw_only=True)
class Seats:
    """Of one group: who has come, of how many."""

    name: str
    world_size: int
    backend: str
    label_of: Callable[[ActorId], str]
    """What messages call an actor."""
    actors: dict[int, ActorId] = field(default_factory=dict)
    """By rank."""
    group: EagerGroup | None = None
    error: Exception | None = None

    def take(self, actor_id: ActorId, world_size: int, rank: int, backend: str) -> None:
        """Seat an actor.

        Raises:
            CollectiveMismatchError: It asks for another group than those who are there.
            RuntimeError: Another actor has the rank.
        """
        label = self.label_of(actor_id)
        if (world_size, backend) != (self.world_size, self.backend):
            msg = (
                f"group {self.name!r}: rank {rank} ({label}) asks for world_size={world_size}, "
                f"backend={backend!r}; {', '.join(self._seated())} for "
                f"world_size={self.world_size}, backend={self.backend!r}. All ranks of a group ask "
                "for the same"
            )
            raise CollectiveMismatchError(msg)
        holder = self.actors.setdefault(rank, actor_id)
        if holder != actor_id:
            msg = (
                f"rank {rank} of group {self.name!r} is {self.label_of(holder)}, and {label} "
                "asks for the same rank"
            )
            raise RuntimeError(msg)

    def _seated(self) -> Iterable[str]:
        for rank, actor_id in sorted(self.actors.items()):
            yield f"rank {rank} ({self.label_of(actor_id)})"

    def late(self, timeout_s: float) -> CollectiveTimeoutError:
        """Return what those who are there raise where others have not come in time."""
        missing = [rank for rank in range(self.world_size) if rank not in self.actors]
        ranks = ", ".join(f"rank {rank}" for rank in missing)
        return CollectiveTimeoutError(
            f"group {self.name!r}: {ranks} of {self.world_size} did not come within {timeout_s} s: "
            f"every rank calls init_collective_group(group_name={self.name!r}). There are "
            f"{', '.join(self._seated())}"
        )
