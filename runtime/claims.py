"""Which processes drive which graphs, and what is done for a process that dies with graphs up."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiled_dag.errors import DeadlockError
from compiled_dag.shm.state import mark_broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.host import ActorId
    from runtime.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A graph that is up."""

    owner: int
    """Line on the board of the process that drives it."""
    graph_id: int
    actors: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bequest:
    """What is to be done if a process dies."""

    owner: int
    actors: tuple[ActorId, ...]
    """They are to let go of what it drove."""
    memory: int
    """Descriptor of a segment with a state word; owned."""
    function: bytes
    """What they run for that, pickled by reference."""
    payload: bytes


class Claims:
    """The session's table of graphs. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._claims: dict[int, Claim] = {}
        self._bequests: dict[tuple[int, int], Bequest] = {}
        """By owner and a number of the owner's."""

    def add(self, claim: Claim) -> None:
        """Note a graph that is about to come up.

        Raises:
            DeadlockError: Another process drives a graph over two or more of its actors. Each of
                the two would begin with one of them and wait for the other.
        """
        with self._lock:
            for other in self._claims.values():
                common = claim.actors & other.actors
                if other.owner != claim.owner and len(common) > 1:
                    raise DeadlockError(self._clash(claim, other, sorted(common)))
            self._claims[claim.graph_id] = claim

    def _clash(self, claim: Claim, other: Claim, common: Sequence[int]) -> str:
        names = ", ".join(self._session.actor(actor).label for actor in common)
        return (
            f"graph {claim.graph_id:x}, driven by {self._name(claim.owner)}, and graph "
            f"{other.graph_id:x}, driven by {self._name(other.owner)}, share the actors {names}. "
            "Graphs that different processes drive may share one actor at most, because nobody "
            "orders their executions: compile both in one process, or tear one down first"
        )

    def _name(self, owner: int) -> str:
        found = next((one for one in self._session.processes if one.line == owner), None)
        return "the driver" if found is None else found.label

    def drop(self, graph_id: int) -> None:
        """Forget a graph that is down. Idempotent."""
        with self._lock:
            self._claims.pop(graph_id, None)

    def bequeath(self, number: int, bequest: Bequest) -> None:
        """Note what is to be done if a process dies, under a number of its own."""
        with self._lock:
            self._bequests[bequest.owner, number] = bequest

    def take_back(self, owner: int, number: int) -> None:
        """Forget it. Idempotent."""
        with self._lock:
            bequest = self._bequests.pop((owner, number), None)
        if bequest is not None:
            os.close(bequest.memory)

    def has_died(self, owner: int) -> None:
        """Do what a process wanted done: break its graphs and groups, free the actors."""
        with self._lock:
            for claim in [one for one in self._claims.values() if one.owner == owner]:
                del self._claims[claim.graph_id]
            mine = [key for key in self._bequests if key[0] == owner]
            bequests = [self._bequests.pop(key) for key in mine]
        for bequest in bequests:
            self._carry_out(bequest)

    def _carry_out(self, bequest: Bequest) -> None:
        try:
            mark_broken(bequest.memory)
        finally:
            os.close(bequest.memory)
        for actor_id in bequest.actors:
            process = self._session.actor(actor_id)
            if process.death is None and not self._session.closed:
                self._session.board.ring(process.line)
                with contextlib.suppress(RuntimeError):  # the session ends, and they with it
                    self._session.submit_pickled(actor_id, bequest.function, bequest.payload)

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        with self._lock:
            bequests, self._bequests = self._bequests, {}
        for bequest in bequests.values():
            os.close(bequest.memory)
