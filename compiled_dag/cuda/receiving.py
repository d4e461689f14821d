"""A reader's half of a device ring: what it has opened of the writer's, and its own events."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from compiled_dag.channel import ring_area as at
from compiled_dag.cuda.driver import Translating
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence

if TYPE_CHECKING:
    from compiled_dag.cuda.driver import Event, Pointer, Stream
    from compiled_dag.cuda.ring import Seat


class _Opened(NamedTuple):
    """A generation of the writer's ring."""

    number: int
    capacity: int
    """Of a slot."""
    pointer: Pointer


class _Loan:
    """Lives as long as views of a slot."""

    __slots__ = ("__weakref__",)


Watch: TypeAlias = "weakref.ref[_Loan]"


class ReceivingRing:
    """Finds slots, and gives them back; see `ring`."""

    def __init__(self, seat: Seat, participant: int) -> None:
        """Make and export the reader's events; opens nothing yet.

        Raises:
            DeviceError: Events cannot be exported.
        """
        self._seat = seat
        self.driver = self._driver = seat.device.driver
        self._memory = seat.memory
        self._host_ordered = seat.spec.transport.host_ordered
        self._words = seat.graph.words
        self._area = area = seat.area
        self._slots = area.slots
        self._position = seat.spec.readers.index(participant)
        self._line = area.reader(self._position) // 8
        self._ready: list[Event | None] = [None] * self._slots
        """The writer's events, opened when first needed."""
        self._closing = threading.Lock()
        """Of whoever destroys these, or records them (`release`)."""
        self._free: list[Event] = []
        self.arrived: Event = 0
        """Of copies on a stream of their own."""
        self._opened: _Opened | None = None
        self._outgrown: list[_Opened] = []
        """What the GPU may still copy from."""
        self._views: tuple[int, Watch] | None = None
        """The use that user code has views of."""
        self._kept: list[tuple[int, Watch]] = []
        """Generations of which user code keeps views."""
        try:
            with Translating(self._driver, f"channel {seat.spec.label}"):
                if seat.receive is not None:
                    self.arrived = self._driver.make_event(is_shared=False)
                seat.make_events(self._free, partial(self._area.free, self._position))
        except BaseException:
            self._destroy_events()
            raise

    # --- one message

    def enter(self, use: int, generation: int, stream: Stream) -> Pointer:
        """Have a stream wait for a use of a slot; returns where the slot is.

        Raises:
            ChannelClosedError: The graph has ended.
            DeviceError: CUDA failed.
        """
        opened = self._find(generation)
        self.await_ready(use, stream)
        return opened.pointer + use % self._slots * opened.capacity

    def _find(self, generation: int) -> _Opened:
        opened = self._opened
        if opened is None or opened.number != generation:
            opened = self._open(generation)
        if self._outgrown:
            self._close_outgrown()
        return opened

    def await_ready(self, use: int, stream: Stream) -> None:
        """Have a stream wait for what the writer has copied into a slot."""
        if self._host_ordered:
            return
        slot = use % self._slots
        event = self._ready[slot]
        if event is None:
            event = self._import_ready(slot)
        self._driver.wait(stream, event)

    def leave(self, use: int, stream: Stream) -> None:
        """Give a slot back once a stream is done with what it has to do by now."""
        event = self._free[use % self._slots]
        self._driver.record(event, stream)
        if self._host_ordered:
            self._seat.await_gpu(event)
        self.pass_over(use)

    def pass_over(self, use: int) -> None:
        """Give a slot back that nothing was taken from."""
        if not STORES_STAY_IN_ORDER:
            fence()
        self._words[self._line + at.FREED] = use + 1
        seat = self._seat
        seat.graph.board.ring(seat.graph.processes[seat.spec.writer])

    # --- views of a slot

    def lend(self, use: int, generation: int) -> tuple[Pointer, int, object]:
        """Let user code have views of a slot, which nothing waits for yet.

        Returns:
            Where the slot is, its size in bytes, and what views are to keep alive.
        """
        opened = self._find(generation)
        loan = _Loan()
        self._views = use, weakref.ref(loan)
        return opened.pointer + use % self._slots * opened.capacity, opened.capacity, loan

    def take_back(self, stream: Stream) -> bool:
        """Give the slot back that was lent, if one was, as `leave` does.

        Returns:
            False if user code keeps a view: then nobody will write to this generation again.
        """
        if self._views is None:
            return True
        use, watch = self._views
        self._views = None
        is_kept = self._note_kept(watch)
        self.leave(use, stream)
        return not is_kept

    def _note_kept(self, watch: Watch) -> bool:
        """Tell whether user code keeps a view, and have the writer know it; garbage is nobody's."""
        if watch() is not None:
            gc.collect()
        if watch() is None:
            return False
        assert self._opened is not None, "it was lent"
        self._kept.append((self._opened.number, watch))
        self._words[self._line + at.KEPT] = self._opened.number + 1
        return True

    def _first_kept(self) -> int:
        """Return the first generation of which user code keeps views, or a number above all."""
        self._kept = [one for one in self._kept if one[1]() is not None]
        return min((number for number, _ in self._kept), default=at.GENERATIONS)

    def _open(self, generation: int) -> _Opened:
        seat, words = self._seat, self._words
        words[self._line + at.OPENED] = generation + 1
        seat.check_open()
        place = self._area.generation(generation)
        handle = bytes(seat.graph.view[place + at.MEMORY : place + at.MEMORY + at.HANDLE])
        pointer = self._memory.open(handle)
        made = _Opened(generation, words[place // 8 + at.CAPACITY], pointer)
        if self._opened is not None:
            self._outgrown.append(self._opened)
        self._opened = made
        return made

    def _import_ready(self, slot: int) -> Event:
        place = self._area.ready(slot)
        handle = bytes(self._seat.graph.view[place : place + at.HANDLE])
        self._ready[slot] = event = self._driver.import_event(handle)
        return event

    def _close_outgrown(self) -> None:
        """Close outgrown rings if the GPU has copied all it has to from them."""
        assert self._opened is not None, "outgrown by what?"
        kept = self._first_kept()
        closed = [ring for ring in self._outgrown if ring.number < kept]
        if not closed or not self._is_idle():
            return
        for ring in closed:
            self._outgrown.remove(ring)
            self._memory.close(ring.pointer)
        self._words[self._line + at.CLOSED] = min(self._opened.number, kept)

    def _is_idle(self) -> bool:
        return all(map(self._driver.is_done, self._free))

    # --- the end

    def release(self, stream: Stream) -> None:
        """Record the events of a writer that has died; see `rescue`."""
        if self._seat.is_gone(self._seat.spec.writer):
            with self._closing:
                for event in filter(None, self._ready):
                    self._driver.record(event, stream)

    def close_imports(self, deadline: float) -> None:
        """Close what is open of the writer's, once the GPU has done with it, and say so.

        If that is late it stays open, for good: closing it then is undefined in CUDA. So it does
        as long as user code keeps views.
        """
        if self._words[self._line + at.READER_ENDED]:
            return
        if self._views is not None:  # the graph has ended in the middle of an execution
            use, watch = self._views
            self._views = None
            self._note_kept(watch)
            self._driver.record(self._free[use % self._slots], self._seat.device.stream())
        if not self._seat.wait(self._is_idle, deadline) or self._first_kept() < at.GENERATIONS:
            return
        opened = [*self._outgrown, *([] if self._opened is None else [self._opened])]
        self._outgrown, self._opened = [], None
        for ring in opened:
            self._memory.close(ring.pointer)
        with self._closing:
            ready, self._ready = self._ready, [None] * self._slots
            for event in ready:
                if event is not None:
                    self._driver.destroy_event(event)
        seat = self._seat
        self._words[self._line + at.READER_ENDED] = 1
        seat.graph.board.ring(seat.graph.processes[seat.spec.writer])

    def free_exports(self, deadline: float) -> bool:
        """Destroy the events once the writer has closed them; returns whether that was in time."""
        if not self._words[self._line + at.READER_ENDED]:
            self.close_imports(deadline)
            if not self._words[self._line + at.READER_ENDED]:
                return False
        if self._free and not self._seat.wait(self._may_free, deadline):
            return False
        self._destroy_events()
        return True

    def _may_free(self) -> bool:
        fence()
        writer = self._area.start // 8
        return bool(
            self._words[writer + at.WRITER_ENDED]
            or not self._words[writer + at.IMPORTED]
            or self._seat.is_gone(self._seat.spec.writer)
        )

    def _destroy_events(self) -> None:
        events, self._free = [*self._free, *([self.arrived] if self.arrived else [])], []
        self.arrived = 0
        for event in events:
            self._driver.destroy_event(event)
