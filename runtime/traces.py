"""What processes have sent of what they ran (`runtime.spans`), until `runtime.timeline` asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST: Final = 256
"""Processes remembered: a session may start any number of them."""


class Traces:
    """The last that each process has sent, encoded. Any thread may use it; takes no lock."""

    def __init__(self) -> None:
        self._by_pid: dict[int, tuple[int, bytes]] = {}

    def take(self, actor_id: int, pid: int, data: bytes) -> None:
        """Keep what a process has sent, instead of what it sent before."""
        self._by_pid.pop(pid, None)
        self._by_pid[pid] = actor_id, data
        for oldest in list(self._by_pid)[:-_MOST]:
            self._by_pid.pop(oldest, None)

    def items(self) -> Iterable[tuple[int, tuple[int, bytes]]]:
        """Return process id, actor and record of each."""
        return list(self._by_pid.items())
