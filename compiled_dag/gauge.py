"""Reads a graph's memory, and keeps the last figures when the graph goes down."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeAlias

# Not when it is needed: that may be at exit, and a class made there (a NamedTuple runs text) has
# CPython forget that Ctrl-C ended the script, which then exits with 1.
from compiled_dag.channel.usage import usage

if TYPE_CHECKING:
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.usage import Usage
    from compiled_dag.groups import Groups
    from compiled_dag.memory import GraphMemory, Taken

    _Figures: TypeAlias = tuple[tuple[Usage, ...], tuple[Taken, ...]]
    """Of channels, and of groups."""


class Gauge:
    """The memory of one graph, for people who look."""

    def __init__(
        self,
        segment: GraphSegment,
        groups: Groups,
        participants: tuple[str, ...],
        cap_bytes: int | None,
    ) -> None:
        self._segment = segment
        self._groups = groups
        self._participants = participants
        self._cap_bytes = cap_bytes
        self._last: _Figures | None = None

    def read(self) -> GraphMemory:
        """Return what channels and groups take; once the graph is down, what they took just before.

        Raises:
            OSError: The kernel refused to map a channel's words.
        """
        from compiled_dag.memory import GraphMemory  # noqa: PLC0415  rarely needed

        figures = self._look() if self._last is None else self._last
        return GraphMemory.of(self._segment.channels, *figures, self._participants, self._cap_bytes)

    def keep(self) -> None:
        """Look for the last time, if it is the first such call: the segment is about to go."""
        if self._last is None:
            with contextlib.suppress(OSError):  # no room for a look: the end goes first
                self._last = self._look()

    def _look(self) -> _Figures:
        channels = tuple(usage(self._segment, spec.index) for spec in self._segment.channels)
        return channels, self._groups.gpu_bytes
