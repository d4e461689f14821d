"""What a rank shows to those it shares a GPU with: memory of two sides, and its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from collective.cuda_area import DONE, READY, TAKEN, USED
from compiled_dag.cuda.driver import GRANULE, Translating
from compiled_dag.cuda.ring_memory import DeviceMemory
from compiled_dag.shm.segment import round_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from collective.cuda_area import Area
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Event, Pointer, Stream

SIDES: Final = (0, 1)


class _Generation(NamedTuple):
    """One allocation."""

    number: int
    capacity: int
    """Of a side."""
    pointer: Pointer


class OwnBuffer:
    """This rank's memory and events; see `collective.cuda_group`. Raises the driver's errors."""

    def __init__(self, device: Device, area: Area, rank: int) -> None:
        """Allocate and export everything."""
        self._device = device
        self._driver = device.driver
        self._memory = DeviceMemory(device)
        self._area = area
        self._rank = rank
        self._line = area.line(rank)
        others = [other for other in range(area.world_size) if other != rank]
        self._closed = [area.closed(other, rank) for other in others]
        self._current: _Generation | None = None
        self._retired: list[_Generation] = []
        self.ready: list[Event] = []
        """By side: what was laid there is there."""
        self.done: list[Event] = []
        """By side: this rank has read what others laid there."""
        self.places: list[Pointer] = [0, 0]
        """By side: where the last thing was laid."""
        self._stream: Stream | None = None
        """On which the last operation was."""
        try:
            for _ in SIDES:
                self._export(READY, self.ready)
                self._export(DONE, self.done)
            self._grow(1)
        except BaseException:
            self.free()
            raise

    def _export(self, start: int, events: list[Event]) -> None:
        event = self._driver.make_event(is_shared=True)
        events.append(event)
        handle = self._driver.export_event(event)
        self._area.show_handle(self._rank, start, len(events) - 1, handle)

    def lay(self, tensor: torch.Tensor, side: int, readers: Iterable[Event]) -> None:
        """Copy a contiguous tensor to a side, in order with the current stream.

        Args:
            tensor: Of this GPU.
            side: Which.
            readers: The events of those who may still read what was there before.
        """
        if self._retired:
            self._free_retired()
        memory = self._current
        assert memory is not None, "freed"
        if tensor.nbytes > memory.capacity:
            memory = self._grow(tensor.nbytes)
        driver, stream = self._driver, self.stream()
        for event in readers:
            driver.wait(stream, event)
        place = self.places[side] = memory.pointer + side * memory.capacity
        driver.copy(place, tensor.data_ptr(), tensor.nbytes, stream)
        driver.record(self.ready[side], stream)
        self._area.words[self._line + USED + side] = memory.number

    def stream(self) -> Stream:
        """Return the current stream; another one than before is behind all that the events say.

        This rank reads its own memory too, and an event stands for one stream: that of its latest
        record.
        """
        stream = self._device.stream()
        if stream != self._stream:
            for event in (*self.ready, *self.done):
                self._driver.wait(stream, event)
            self._stream = stream
        return stream

    def _grow(self, nbytes: int) -> _Generation:
        """Start a generation with sides for `nbytes`; readers close the old one by and by."""
        old = self._current
        least = nbytes if old is None else max(nbytes, 2 * old.capacity)
        capacity = round_up(least, GRANULE // len(SIDES))
        what = f"rank {self._rank} wants {capacity * len(SIDES)} bytes to show the others {nbytes}"
        with Translating(self._driver, f"{what}, and {self._driver.free_bytes()} are free"):
            pointer, handle = self._memory.make(capacity * len(SIDES))
        made = _Generation(0 if old is None else old.number + 1, capacity, pointer)
        self._area.show_generation(self._rank, made.number, capacity, handle)
        self._area.words[self._line + TAKEN] += capacity * len(SIDES)
        if old is not None:
            self._retired.append(old)
        self._current = made
        return made

    def _free_retired(self) -> None:
        """Free what was outgrown and no rank has open any more."""
        words, newest = self._area.words, self._retired[-1].number + 1
        closed = min((words[place] for place in self._closed), default=newest)
        for old in [old for old in self._retired if old.number < closed]:
            self._retired.remove(old)
            self._drop(old)

    def _drop(self, memory: _Generation) -> None:
        self._memory.drop(memory.pointer)
        self._area.words[self._line + TAKEN] -= memory.capacity * len(SIDES)

    def mark(self) -> None:
        """Have the events stand for all that the current stream has to do by now, too.

        Freeing waits for the whole GPU: for ever, where a stream waits for a rank that has died.
        """
        if self.done:
            self._driver.record(self.done[0], self.stream())

    def is_idle(self) -> bool:
        """Tell whether the GPU has done all that the events stand for."""
        return all(map(self._driver.is_done, (*self.ready, *self.done)))

    def free(self) -> None:
        """Free everything, which nobody has open any more. Idempotent."""
        memories = [*self._retired, *([] if self._current is None else [self._current])]
        self._retired, self._current = [], None
        for memory in memories:
            self._drop(memory)
        events, self.ready, self.done = [*self.ready, *self.done], [], []
        for event in events:
            self._driver.destroy_event(event)
