"""What has happened in a session lately, for `runtime.util.state.list_events`."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

_MOST: Final = 1000

EventKind: TypeAlias = Literal[
    "SESSION_STARTED",
    "PROCESS_STARTED",
    "PROCESS_ENDED",
    "ACTOR_KILLED",
    "ACTOR_RESTARTED",
    "TASK_FAILED",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that has happened."""

    event_id: int
    """Counts from 1; what is missing at the beginning was forgotten."""
    time: float
    """Seconds since 1970."""
    kind: EventKind
    name: str
    """Of the actor, process or task."""
    pid: int
    """0 where there is no process."""
    message: str


class EventLog:
    """The last events. Any thread may use it; takes no lock."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=_MOST)
        self._ids = itertools.count(1)

    def add(self, kind: EventKind, name: str, *, pid: int = 0, message: object = "") -> None:
        """Take note of an event; of `message` the first line is kept."""
        text = str(message).partition("\n")[0]
        self._events.append(
            Event(
                event_id=next(self._ids),
                time=time.time(),
                kind=kind,
                name=name,
                pid=pid,
                message=text,
            )
        )

    def rows(self) -> list[Event]:
        """Return the events, the oldest first."""
        return list(self._events)
