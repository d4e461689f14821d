"""Collect garbage when something waits for what garbage may hold.

The nodes of a graph refer to each other, and to the actors' handles, so a graph nobody has any more
keeps its actors, and their CPUs and GPUs, until Python's cyclic collector comes by. That depends on
allocations, and a driver that waits for a GPU makes none.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.supervisor import Supervisor

_MIN_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0
_PAUSE_PER_COST: Final = 20
"""A collection looks at all objects; it may take one twentieth of the time."""


class Reclaim:
    """Collections on the supervising thread, ever rarer, as long as somebody waits."""

    def __init__(self, supervisor: Supervisor, waits: Callable[[], bool]) -> None:
        """Make it.

        Args:
            supervisor: Runs the collections.
            waits: Tells whether anybody still waits for what garbage may hold.
        """
        self._supervisor = supervisor
        self._waits = waits
        self._planned = False
        self._not_before = 0.0
        self._pause_s = _MIN_PAUSE_S

    def begin(self) -> None:
        """Collect soon: somebody has begun to wait. May be called from anywhere."""
        self._pause_s = _MIN_PAUSE_S
        if not self._planned:
            self._planned = True
            self._supervisor.call_soon(self._collect)

    def _collect(self) -> None:
        if not self._waits():
            self._planned = False
            return
        begun = time.monotonic()
        if begun >= self._not_before:
            gc.collect()
            ended = time.monotonic()
            self._pause_s = max(self._pause_s, _PAUSE_PER_COST * (ended - begun))
            self._not_before = ended + self._pause_s
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        self._supervisor.call_later(max(self._not_before - time.monotonic(), 0.0), self._collect)
