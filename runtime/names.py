"""Names of actors, in namespaces."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.objects import Lifeline
    from runtime.process import ActorProcess


class Names:
    """Which living actor has which name. Any thread may use it."""

    def __init__(self, namespace: str | None) -> None:
        """Make an empty table; `namespace` is that of names given without one."""
        self.default = namespace or ""
        self._lock = threading.Lock()
        self._actors: dict[tuple[str, str], ActorProcess] = {}

    def claim(self, name: str, namespace: str | None, actor: ActorProcess) -> Lifeline | None:
        """Give `actor` the name, or return the lifeline of the living one that has it."""
        key = (self.default if namespace is None else namespace, name)
        with self._lock:
            known = self._actors.get(key)
            if known is not None and known.can_be_found:
                return known.lifeline()
            self._actors[key] = actor
        return None

    def find(self, name: str, namespace: str | None) -> ActorProcess:
        """Return the actor with this name.

        Raises:
            ValueError: There is none.
        """
        space = self.default if namespace is None else namespace
        with self._lock:
            known = self._actors.get((space, name))
            if known is not None and known.can_be_found:
                return known
            names = sorted(
                other
                for (where, other), actor in self._actors.items()
                if where == space and actor.can_be_found
            )
        there = f"there are {', '.join(map(repr, names))}" if names else "none has a name there"
        where = f" in namespace {space!r}" if space else ""
        raise ValueError(f"no living actor is named {name!r}{where}: {there}")
