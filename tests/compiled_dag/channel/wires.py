"""One channel with all its ends in this process, each with a mapping of its own as in real life."""

from __future__ import annotations

import os
from typing import Any

from compiled_dag.channel.graph_segment import GraphSegment
from compiled_dag.channel.layout import ChannelSpec
from compiled_dag.channel.transport import UNHINTED, Transport
from compiled_dag.channel.usage import usage
from compiled_dag.ends import open_reader, open_writer
from compiled_dag.shm.board import Board
from compiled_dag.shm.segment import PAGE, Segment

SLOT = 64 * PAGE
"""First capacity of a payload slot: room for a value that is leased."""


class Wire:
    """A writer and its readers."""

    def __init__(
        self,
        *,
        readers: int = 1,
        depth: int = 2,
        slot_bytes: int = SLOT,
        cap: int | None = None,
        transport: Transport = UNHINTED,
    ) -> None:
        segment = Board.create()
        self.board = Board(segment.fd)
        segment.close()
        numbers = tuple(range(1, readers + 1))
        self.spec = ChannelSpec(
            index=0,
            writer=0,
            readers=numbers,
            depth=depth,
            label="Worker.f#1",
            transport=transport,
        )
        made = Segment(-1)
        GraphSegment.allocate(made, readers + 1, (self.spec,))
        self._graphs = [self._map(os.dup(made.fd)) for _ in range(readers + 1)]
        made.close()
        self.graph = self._graphs[0]
        self.writer = open_writer(self.graph, self.spec, slot_bytes=slot_bytes, cap_bytes=cap)
        self.readers = [open_reader(self._graphs[n], self.spec, n, "Reader(2)") for n in numbers]

    def _map(self, fd: int) -> GraphSegment:
        processes = tuple(range(len(self.spec.readers) + 1))
        labels = ("Worker(1)", *(f"Reader({n + 1})" for n in self.spec.readers))
        return GraphSegment(fd, self.board, processes, (self.spec,), labels)

    def send(self, value: Any) -> Any:
        """Write, and read with every reader; return what the first got."""
        self.writer.write(value)
        first, *_ = [reader.read() for reader in self.readers]
        return first

    def memory(self) -> int:
        """Return the bytes the whole segment really takes."""
        return os.fstat(self.graph.segment.fd).st_blocks * 512

    def reserved(self) -> int:
        return self.graph.reserved_bytes()[0]

    def used(self) -> int:
        """Return the payload bytes that somebody has to read or holds."""
        return usage(self.graph, 0).used_bytes

    def close(self) -> None:
        for graph in self._graphs:
            graph.close()
