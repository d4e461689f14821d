"""Actors that wait for each other in a circle: found after a while, and told by name.

An actor does one thing at a time. One that waits, in a call or in a step of a graph, for what
another one has to do first holds up everything else it is asked. If such waits form a circle,
nobody in it goes on. No single process can see that; the driver can: a `get` that blocks tells it
what it waits for (on the board), and graphs know who waits for whom in their steps.

Looking costs a timer while somebody waits: nothing is looked at before a wait is `AFTER_S` old.
"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Final

from runtime.activity import wait_for_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compiled_dag.host import ActorId, Wait
    from runtime.session import Session

AFTER_S: Final = 10.0
_LEAST_S: Final = 0.05
"""Between two looks."""


class Waits:
    """The one look-out of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sources: dict[int, Callable[[], Iterable[Wait]]] = {}
        self._keys = itertools.count()
        self._armed = False
        self._told: set[frozenset[ActorId]] = set()

    def watch(self, source: Callable[[], Iterable[Wait]]) -> Callable[[], None]:
        """Ask `source` for waits in graphs; returns how to stop that. Stopping takes no lock."""
        key = next(self._keys)  # from any thread: a dict's single steps need no lock
        self._sources[key] = source

        def stop() -> None:
            self._sources.pop(key, None)

        return stop

    def arm(self) -> None:
        """Look after a while: somebody has begun to wait. Any thread."""
        if not self._armed:
            self._armed = True
            self._session.supervisor.call_soon(lambda: self._look_in(AFTER_S))

    def _look_in(self, delay_s: float) -> None:
        self._session.supervisor.call_later(max(delay_s, _LEAST_S), self._look)

    def _look(self) -> None:
        """Tell of circles that are old enough; look again as long as anybody waits in a call."""
        if self._session.closed:
            return
        self._armed = False  # first: who begins to wait from now on arms anew
        in_calls = self._in_calls()
        edges = in_calls + [wait for source in list(self._sources.values()) for wait in source()]
        circles = circles_of(edges)
        for circle in circles:
            if circle[-1].for_s >= AFTER_S:
                self._tell(circle)
        self._told &= {frozenset(wait.actor_id for wait in circle) for circle in circles}
        if in_calls and not self._armed:
            self._armed = True
            young = [wait.for_s for wait in edges if wait.for_s < AFTER_S]
            self._look_in(AFTER_S - max(young, default=0.0))

    def _in_calls(self) -> list[Wait]:
        """Return the waits of processes for what others' main threads have to do."""
        living = [one for one in self._session.processes if one.pid and not one.gone]
        return [wait for wait in map(wait_for_turn, living) if wait is not None]

    def _tell(self, circle: Sequence[Wait]) -> None:
        members = frozenset(wait.actor_id for wait in circle)
        if members in self._told:
            return
        self._told.add(members)
        warnings.warn(text_of(circle, self._label), RuntimeWarning, stacklevel=1)

    def _label(self, actor_id: ActorId) -> str:
        return self._session.processes[actor_id].label


def circles_of(waits: Iterable[Wait]) -> list[tuple[Wait, ...]]:
    """Return the circles among waits, each once; its last wait is its youngest, who closed it."""
    by_actor: dict[ActorId, list[Wait]] = {}
    for wait in waits:
        by_actor.setdefault(wait.actor_id, []).append(wait)
    found: dict[frozenset[ActorId], tuple[Wait, ...]] = {}
    for start in by_actor:
        circle = _circle_from(start, by_actor)
        if circle:
            found.setdefault(frozenset(wait.actor_id for wait in circle), circle)
    return list(found.values())


def _circle_from(start: ActorId, by_actor: dict[ActorId, list[Wait]]) -> tuple[Wait, ...]:
    """Return a shortest way from an actor back to itself, if there is one."""
    reached: dict[ActorId, tuple[Wait, ...]] = {start: ()}
    todo = [start]
    for actor in todo:
        for wait in by_actor.get(actor, ()):
            way = (*reached[actor], wait)
            if wait.on == start:
                youngest = min(range(len(way)), key=lambda index: way[index].for_s)
                return (*way[youngest + 1 :], *way[: youngest + 1])
            if wait.on is not None and wait.on not in reached:
                reached[wait.on] = way
                todo.append(wait.on)
    return ()


def text_of(circle: Sequence[Wait], label: Callable[[ActorId], str]) -> str:
    """Return what is said about a circle."""
    names = ", ".join(label(wait.actor_id) for wait in circle)
    lines = [
        f"  {label(wait.actor_id)} waits for {wait.text}, for {wait.for_s:.1f} s" for wait in circle
    ]
    advice = (
        "None of them can go on: an actor does one thing at a time. Do not wait (runtime.get) for "
        "a call that has to wait for this one; max_concurrency=2 lets an actor take calls meanwhile"
    )
    return "\n".join([f"{names} wait for each other in a circle:", *lines, advice])
