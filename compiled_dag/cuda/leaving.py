"""The end of a graph's device rings in one process: what is freed now, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from compiled_dag.cuda.driver import Selecting
from compiled_dag.cuda.ring import closing_deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compiled_dag.cuda.driver import Driver


class Ring(Protocol):
    """One end's half of a ring."""

    driver: Driver

    def close_imports(self, deadline: float) -> None:
        """Close what peers own."""
        ...

    def free_exports(self, deadline: float) -> bool:
        """Free what peers had open; returns False if they have it open still at `deadline`."""
        ...


class Left:
    """Halves that could not be freed when their graph ended; dropped with the process."""

    def __init__(self, rings: Iterable[Ring]) -> None:
        self.rings = list(rings)

    def add(self, other: Left) -> None:
        """Take over what another one has."""
        self.rings += [ring for ring in other.rings if ring not in self.rings]

    def sweep(self) -> bool:
        """Free those that can be by now; returns whether none is left."""
        self.rings = [ring for ring in self.rings if not _free(ring, 0.0)]
        return not self.rings

    def close(self) -> None:
        """Forget them: the process ends, and its context frees what it can."""
        self.rings = []


def leave(rings: Iterable[Ring]) -> Left:
    """End this process's halves of the rings of one graph, which has ended.

    First all imports are closed, then exports are freed: two actors that each wait for the other
    have both done the first.

    Returns:
        What could not be freed in time.
    """
    halves, deadline = list(rings), closing_deadline()
    for ring in halves:
        with Selecting(ring.driver):
            ring.close_imports(deadline)
    return Left(ring for ring in halves if not _free(ring, deadline))


def _free(ring: Ring, deadline: float) -> bool:
    with Selecting(ring.driver):
        return ring.free_exports(deadline)
