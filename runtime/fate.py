"""What becomes of an actor when its process ends: dead, or made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime import obituary

if TYPE_CHECKING:
    from collections.abc import Callable


class Fate:
    """Why an actor's process ends, how it did, and how often the actor may be made again."""

    __slots__ = ("_left", "num_restarts", "reason", "released", "status")

    def __init__(self, max_restarts: int) -> None:
        """Begin with a process that nobody has ended; negative `max_restarts`: any number."""
        self._left = max_restarts
        self.num_restarts = 0
        self.released = False
        """Whether its last handle is gone."""
        self.reason = ""
        """Why this session ended it, if it did."""
        self.status: int | None = None
        """The exit status of its process, once it is known: negative for a signal."""

    def give_reason(self, reason: str) -> None:
        """Note why this session ends it; the first reason stays."""
        self.reason = self.reason or reason

    @property
    def is_unused(self) -> bool:
        """Whether it is to end after its calls."""
        return self.released or self.reason == obituary.UNUSED

    @property
    def has_restarts(self) -> bool:
        """Whether it may be made again at all."""
        return self._left != 0

    def restarts(self, calls_are_left: Callable[[], bool]) -> bool:
        """Tell whether it is to be made again, its process having ended.

        It may be, and was not asked to end; or was, after calls some of which are still to run.
        """
        return (
            self._left != 0
            and self.status != 0
            and self.reason in ("", obituary.UNUSED)
            and (not self.is_unused or calls_are_left())
        )

    def use_restart(self) -> None:
        """Count one more restart: there is a new process, of whose end nothing is known."""
        self._left -= self._left > 0
        self.num_restarts += 1
        self.status = None
