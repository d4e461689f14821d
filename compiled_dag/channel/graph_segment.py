"""A graph's shared memory, seen from one participant: state, progress, channels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from compiled_dag.channel import layout as at
from compiled_dag.channel.layout import ChannelSpec, Layout
from compiled_dag.errors import ChannelClosedError
from compiled_dag.shm.segment import Segment, require_memory
from compiled_dag.shm.state import set_state

if TYPE_CHECKING:
    from compiled_dag.shm.board import Board

STATE_NAMES: Final = {at.OPEN: "open", at.CLOSED: "torn down", at.BROKEN: "broken"}


class Progress(NamedTuple):
    """What a participant was last seen doing."""

    execution: int
    """The one under way, or the next."""
    step: int
    """Index into its program, from 1; 0 is between executions."""
    for_s: float
    """Since how long."""


class GraphSegment:
    """The mapped control part of one graph's segment, and its descriptor for payloads."""

    def __init__(
        self,
        fd: int,
        board: Board,
        processes: tuple[int, ...],
        channels: tuple[ChannelSpec, ...],
        labels: tuple[str, ...],
    ) -> None:
        """Map the segment.

        Args:
            fd: The segment; owned from here on.
            board: The session's board.
            processes: Board line of each participant; the driver is participant 0.
            channels: All channels of the graph.
            labels: What messages call each participant.
        """
        self.segment = Segment(fd)
        self.board = board
        self.processes = processes
        self.channels = channels
        self.labels = labels
        self.layout = Layout.of(len(processes), channels)
        self.mapping = self.segment.map(0, self.layout.control_bytes)
        self.view = self.mapping.view()
        self.words = self.view.cast("Q")

    @staticmethod
    def allocate(
        segment: Segment, num_participants: int, channels: tuple[ChannelSpec, ...]
    ) -> None:
        """Have `segment`, which has no descriptor, be the memory of a graph, initialised.

        If this raises, Ctrl-C included, `segment` is still to be closed.

        Raises:
            MemoryCapError: There is not enough memory for the control part.
        """
        layout = Layout.of(num_participants, channels)
        require_memory(layout.control_bytes, f"a graph of {len(channels)} channels")
        segment.allocate("compiled-dag-graph", layout.size)
        mapping = segment.map(0, layout.control_bytes)
        mapping.populate(0, layout.control_bytes)
        words = mapping.view().cast("Q")
        words[at.STATE_WORD] = at.OPEN

    @property
    def state(self) -> int:
        """OPEN, CLOSED or BROKEN."""
        return self.words[at.STATE_WORD]

    def end(self, state: int) -> None:
        """Close or break the graph (driver only) and wake everybody who waits on it."""
        if self.state == at.OPEN:
            set_state(self.words, state)
        for process in self.processes:
            self.board.ring(process)

    def guard(self) -> None:
        """Raise if the graph is no longer open; every wait calls it.

        Raises:
            ChannelClosedError: The graph was torn down or broken.
        """
        state = self.words[at.STATE_WORD]
        if state != at.OPEN:
            msg = f"the graph is {STATE_NAMES.get(state, state)}"
            raise ChannelClosedError(msg)

    def progress(self, participant: int) -> Progress:
        """Return what `participant` last reported."""
        line = self.layout.participant(participant) // 8
        words = self.words
        since = words[line + at.SINCE_NS]
        for_s = (time.monotonic_ns() - since) / 1e9 if since else 0.0
        return Progress(words[line + at.EXECUTION], words[line + at.STEP], for_s)

    def pid(self, participant: int) -> int:
        """Return the process id of an actor that has loaded its program, else 0."""
        return self.words[self.layout.participant(participant) // 8 + at.PID]

    def written(self) -> tuple[int, ...]:
        """Return how many messages each channel has had."""
        words = self.words
        return tuple(words[place.control // 8 + at.SEQUENCE] for place in self.layout.channels)

    def begun(self, participant: int, channel: int) -> int:
        """Return how many messages of a channel one of its readers has taken."""
        position = self.channels[channel].readers.index(participant)
        return self.words[self.layout.channels[channel].reader(position) // 8]

    def reserved_bytes(self) -> dict[int, int]:
        """Return the payload bytes each channel has taken so far, by channel index."""
        return {
            spec.index: self.words[place.control // 8 + at.RESERVED]
            for spec, place in zip(self.channels, self.layout.channels, strict=True)
        }

    def ring_bytes(self) -> dict[int, int]:
        """Return what each channel has for GPUs to copy tensors to, by channel index."""
        return {
            spec.index: self.words[place.control // 8 + at.RING_BYTES]
            for spec, place in zip(self.channels, self.layout.channels, strict=True)
        }

    def close(self) -> None:
        """Close the descriptor; what is mapped stays mapped while somebody holds a view."""
        self.segment.close()
