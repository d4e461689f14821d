"""`CommunicatorHandle`: a group of actors, as whoever made it from outside holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, init=False)
class CommunicatorHandle:
    """A collective group. Equal by value; keeps its actors alive, as their handles do.

    The group itself lives until it is destroyed, or all its actors have ended; it does not end with
    this handle.
    """

    name: str
    """What its members call it: the `group_name` of their operations."""
    backend: str
    """``"gloo"``, ``"nccl"``, ``"shm"``, ``"cuda_ipc"``, or a registered one."""
    _actors: tuple[Any, ...]

    def __init__(self, actors: Any, name: str, backend: str) -> None:
        """Describe a group.

        Args:
            actors: Handles of its members, by rank.
            name: Its name.
            backend: What carries its operations.
        """
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "_actors", tuple(actors))

    @property
    def actors(self) -> list[Any]:
        """Handles of its members, by rank."""
        return list(self._actors)

    def get_rank(self, actor: Any) -> int:
        """Return the rank of a member; -1 for any other actor."""
        return self._actors.index(actor) if actor in self._actors else -1

    def __repr__(self) -> str:
        return f"<{self.backend} group {self.name!r} of {', '.join(map(repr, self._actors))}>"
