"""The writer's half of a device ring: its memory, its events, and what its readers have open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from compiled_dag.channel import ring_area as at
from compiled_dag.channel.layout import RING_BYTES
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.ring import ALIGN, offsets
from compiled_dag.cuda.ring_memory import check_cap
from compiled_dag.shm.futex import fence
from compiled_dag.shm.segment import round_up
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.cuda.driver import Event, Pointer, Stream
    from compiled_dag.cuda.ring import Seat


class _Generation(NamedTuple):
    """One allocation of the ring."""

    number: int
    capacity: int
    """Of a slot."""
    pointer: Pointer
    nbytes: int
    """Of all slots."""


class SendingRing:
    """Copies tensors into slots; see `ring`."""

    def __init__(self, seat: Seat, slot_bytes: int, cap_bytes: int | None) -> None:
        """Allocate and export the ring.

        Args:
            seat: Where the end is.
            slot_bytes: First capacity of a slot.
            cap_bytes: Cap on the payload memory of the whole graph, or None.

        Raises:
            MemoryCapError: The GPU has no memory left for it, or the cap does not allow it.
            DeviceError: Its memory or its events cannot be exported.
        """
        self._seat = seat
        self._cap_bytes = cap_bytes
        self.driver = self._driver = seat.device.driver
        self._memory = seat.memory
        self._host_ordered = seat.spec.transport.host_ordered
        self._words = seat.graph.words
        self._area = area = seat.area
        self._slots = area.slots
        self._line = area.start // 8
        self._taken = seat.graph.layout.channels[seat.spec.index].control // 8 + RING_BYTES
        readers = seat.spec.readers
        self._reader_lines = [area.reader(position) // 8 for position in range(len(readers))]
        self._free: list[tuple[Event, ...] | None] = [None] * self._slots
        """Readers' events, opened when first needed."""
        self._closing = threading.Lock()
        """Of whoever destroys these, or records them (`release`)."""
        self._ready: list[Event] = []
        self._current: _Generation | None = None
        self._retired: list[_Generation] = []
        self._site = Site()
        self.use = 0
        """The next one."""
        try:
            with Translating(self._driver, f"channel {seat.spec.label}"):
                seat.make_events(self._ready, area.ready)
            self._grow(slot_bytes)
        except BaseException:
            self._free_all()
            raise

    # --- one message

    def send(self, tensors: Sequence[torch.Tensor]) -> int:
        """Copy contiguous tensors into the next slot; returns the generation it is in.

        It is the next slot still until `sent`. Waits for readers' hosts that are N uses behind.

        Raises:
            MemoryCapError: There is no device memory for them.
            ChannelClosedError: The graph has ended.
            DeviceError: CUDA failed.
        """
        places, nbytes = offsets([tensor.nbytes for tensor in tensors])
        self._await_readers()
        if self._retired:
            self._free_retired()
        ring = self._current
        assert ring is not None, "closed"
        if nbytes > ring.capacity:
            ring = self._grow(nbytes)
        elif self._is_kept(ring):
            ring = self._replace(ring)
        driver, stream = self._driver, self._seat.device.stream()
        slot = self.use % self._slots
        if self.use >= self._slots and not self._host_ordered:
            for event in self._free[slot] or self._import_free(slot):
                driver.wait(stream, event)
        start = ring.pointer + slot * ring.capacity
        for tensor, place in zip(tensors, places, strict=True):
            if tensor.nbytes:
                driver.copy(start + place, tensor.data_ptr(), tensor.nbytes, stream)
        driver.record(self._ready[slot], stream)
        if self._host_ordered:
            self._seat.await_gpu(self._ready[slot])
        return ring.number

    def sent(self) -> None:
        """Go on to the next slot: the message was published."""
        self.use += 1

    def _await_readers(self) -> None:
        words, lines, least = self._words, self._reader_lines, self.use - self._slots + 1

        def are_here() -> bool:
            return all(words[line + at.FREED] >= least for line in lines)

        if least > 0 and not are_here():
            self._seat.waiter.until(are_here, self._seat.graph.guard, None, self._site)

    def _import_free(self, slot: int) -> tuple[Event, ...]:
        seat, view = self._seat, self._seat.graph.view
        self._words[self._line + at.IMPORTED] = 1
        seat.check_open()
        found = []
        for position in range(len(self._reader_lines)):
            place = self._area.free(position, slot)
            found.append(self._driver.import_event(bytes(view[place : place + at.HANDLE])))
        self._free[slot] = events = tuple(found)
        return events

    # --- memory

    def _grow(self, nbytes: int) -> _Generation:
        """Start a generation whose slots have room for `nbytes`."""
        old = self._current
        least = round_up(nbytes, ALIGN)
        return self._start(least if old is None else max(least, 2 * old.capacity))

    def _is_kept(self, ring: _Generation) -> bool:
        """Tell whether a reader's user keeps what is in a ring, whose readers are here."""
        return any(self._words[line + at.KEPT] > ring.number for line in self._reader_lines)

    def _replace(self, ring: _Generation) -> _Generation:
        """Start a generation like this one. Every reader asks for that once at most."""
        return self._start(ring.capacity)

    def _start(self, capacity: int) -> _Generation:
        old = self._current
        number = 0 if old is None else old.number + 1
        ring_bytes = capacity * self._slots
        check_cap(self._seat.graph, self._seat.spec, ring_bytes, "a ring", self._cap_bytes)
        what = f"channel {self._seat.spec.label} wants {ring_bytes} bytes for {self._slots} slots"
        with Translating(self._driver, f"{what}, and {self._driver.free_bytes()} are free"):
            pointer, handle = self._memory.make(ring_bytes)
        made = _Generation(number, capacity, pointer, ring_bytes)
        place = self._area.generation(number)
        self._words[place // 8 + at.CAPACITY] = capacity
        self._seat.graph.view[place + at.MEMORY : place + at.MEMORY + at.HANDLE] = handle
        self._words[self._line + at.GENERATION] = number
        self._words[self._taken] += made.nbytes
        if old is not None:
            self._retired.append(old)
        self._current = made
        return made

    def _free_retired(self) -> None:
        """Free outgrown rings that no reader has open any more."""
        words, lines = self._words, self._reader_lines
        closed = min(words[line + at.CLOSED] for line in lines)
        for ring in [ring for ring in self._retired if ring.number < closed]:
            self._retired.remove(ring)
            self._free_memory(ring)

    def _free_memory(self, ring: _Generation) -> None:
        self._words[self._taken] -= ring.nbytes
        self._memory.drop(ring.pointer)

    # --- the end

    def release(self, stream: Stream) -> None:
        """Record the events of readers that have died; see `rescue`."""
        gone = [n for n, reader in enumerate(self._seat.spec.readers) if self._seat.is_gone(reader)]
        with self._closing:
            for events in filter(None, self._free):
                for position in gone:
                    self._driver.record(events[position], stream)

    def close_imports(self, deadline: float) -> None:
        """Close the readers' events, once the GPU waits for none of them, and say so.

        If that is late they stay open: a reader must not destroy what a stream still waits for.
        """
        if self._words[self._line + at.WRITER_ENDED]:
            return
        if not self._seat.wait(self._is_idle, deadline):
            return
        with self._closing:
            for events in self._free:
                for event in events or ():
                    self._driver.destroy_event(event)
            self._free = [None] * self._slots
        self._words[self._line + at.WRITER_ENDED] = 1
        for reader in self._seat.spec.readers:
            self._seat.graph.board.ring(self._seat.graph.processes[reader])

    def free_exports(self, deadline: float) -> bool:
        """Free the ring as soon as nobody has it open; returns whether that was in time.

        Freeing waits for the GPU, and for ever if that waits for the event of a dead reader.
        """
        self.close_imports(deadline)
        if not self._words[self._line + at.WRITER_ENDED]:
            return False
        if self._ready and not self._seat.wait(self._may_free, deadline):
            return False
        self._free_all()
        return True

    def _is_idle(self) -> bool:
        """Tell whether the GPU is done with all copies, which are behind all waits for readers."""
        return all(map(self._driver.is_done, self._ready))

    def _may_free(self) -> bool:
        """Tell whether no reader has anything open, nor will have."""
        fence()
        words, seat = self._words, self._seat
        for reader, line in zip(seat.spec.readers, self._reader_lines, strict=True):
            has_ended = words[line + at.READER_ENDED] or not words[line + at.OPENED]
            if not has_ended and not seat.is_gone(reader):
                return False
        return True

    def _free_all(self) -> None:
        rings = [*self._retired, *([] if self._current is None else [self._current])]
        self._retired, self._current = [], None
        for ring in rings:
            self._free_memory(ring)
        ready, self._ready = self._ready, []
        for event in ready:
            self._driver.destroy_event(event)
