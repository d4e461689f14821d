"""What a rank has open of those it shares a GPU with."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from collective.cuda_area import DONE, READY, USED
from collective.cuda_buffer import SIDES

if TYPE_CHECKING:
    from collective.cuda_area import Area
    from compiled_dag.cuda.driver import Driver, Event, Pointer, Stream


class _Opened(NamedTuple):
    """A generation of a rank's memory."""

    pointer: Pointer
    capacity: int
    """Of a side."""


class Peer:
    """One other rank. Raises the driver's errors."""

    def __init__(self, driver: Driver, area: Area, rank: int, me: int) -> None:
        """Open nothing yet.

        Args:
            driver: This process's.
            area: Where handles are.
            rank: The other one.
            me: This one.
        """
        self.rank = rank
        self.ready: list[Event] = []
        self.done: list[Event] = []
        self._closing = threading.Lock()
        """Of whoever destroys these events, or records them (`release`)."""
        self._driver = driver
        self._area = area
        self._used = area.line(rank) + USED
        self._closed = area.closed(me, rank)
        self._generation = 0
        """No older one will be read any more."""
        self._opened: _Opened | None = None
        self._outgrown: list[Pointer] = []
        """What the GPU may still read."""

    def open_events(self) -> None:
        """Open its events."""
        for side in SIDES:
            for start, events in ((READY, self.ready), (DONE, self.done)):
                handle = self._area.handle(self.rank, start, side)
                events.append(self._driver.import_event(handle))

    def follow(self, side: int) -> None:
        """Take note of the generation that it has used last."""
        used = self._area.words[self._used + side]
        if used > self._generation:
            self._generation = used
            if self._opened is not None:
                self._outgrown.append(self._opened.pointer)
                self._opened = None

    @property
    def is_behind(self) -> bool:
        """Whether it waits for this rank to let go of older memory."""
        return self._area.words[self._closed] != self._generation

    def place(self, side: int) -> Pointer:
        """Return where it has laid what this rank is to read; opens its memory if need be."""
        opened = self._opened
        if opened is None:
            capacity, handle = self._area.generation(self.rank, self._generation)
            opened = self._opened = _Opened(self._driver.import_memory(handle), capacity)
        return opened.pointer + side * opened.capacity

    def close_outgrown(self) -> None:
        """Close older memory, which the GPU does not read any more, and say so."""
        while self._outgrown:
            self._driver.close_memory(self._outgrown.pop())
        self._area.words[self._closed] = self._generation

    def release(self, stream: Stream) -> None:
        """Record its events, which has died; see `compiled_dag.cuda.rescue`."""
        with self._closing:
            for event in (*self.ready, *self.done):
                self._driver.record(event, stream)

    def close(self) -> None:
        """Close everything. Idempotent."""
        if self._opened is not None:
            self._outgrown.append(self._opened.pointer)
            self._opened = None
        while self._outgrown:
            self._driver.close_memory(self._outgrown.pop())
        with self._closing:
            events, self.ready, self.done = [*self.ready, *self.done], [], []
            for event in events:
                self._driver.destroy_event(event)
