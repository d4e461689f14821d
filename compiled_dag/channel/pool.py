"""The payload slots of one channel, as their writer keeps them.

Slots of one capacity come in runs (extents); more are added when all are pinned, and larger ones
replace them when a value does not fit. An outgrown extent gives its memory back when its last slot
is released.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from compiled_dag.channel import layout as at
from compiled_dag.errors import MemoryCapError
from compiled_dag.interrupts import whole
from compiled_dag.shm.segment import Mapping, require_memory, round_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.channel.graph_segment import GraphSegment


class Extent:
    """A run of payload slots of one capacity (writer's side)."""

    __slots__ = ("capacity", "first_slot", "first_use", "index", "mapping", "offset", "size",
                 "slots", "stride", "view", "words")  # fmt: skip

    def __init__(
        self, graph: GraphSegment, index: int, offset: int, capacity: int, slots: int, readers: int
    ) -> None:
        self.index = index
        self.offset = offset
        self.capacity = capacity
        self.slots = slots
        self.stride = at.stride(capacity)
        self.first_slot = at.extent_head(readers, slots, capacity)
        self.size = self.first_slot + slots * self.stride
        self.first_use = readers * slots
        """Where the writer's own row of words begins: the use each slot is in."""
        self.mapping: Mapping = graph.segment.map(offset, self.size)
        self.view = self.mapping.view()
        self.words = self.view[: at.words_bytes(readers, slots)].cast("Q")

    def slot(self, index: int) -> int:
        """Return the offset of a slot in the mapping."""
        return self.first_slot + index * self.stride


class Pool:
    """The payload slots of one channel: last freed, first used, so that pages stay warm."""

    def __init__(
        self, graph: GraphSegment, spec: at.ChannelSpec, slot_bytes: int, cap_bytes: int | None
    ) -> None:
        self._graph = graph
        self._spec = spec
        self._cap_bytes = cap_bytes
        self._place = graph.layout.channels[spec.index]
        self._capacity = at.slot_capacity(slot_bytes)
        self._num_readers = len(spec.readers)
        self._extents: list[Extent] = []
        self._retired: list[Extent] = []
        self._uses: dict[tuple[int, int], int] = {}
        self._free: list[tuple[Extent, int]] = []
        self._busy: deque[tuple[Extent, int]] = deque()
        self._end = self._place.region
        self.on_punch: Callable[[Mapping], None] | None = None
        """Called with an extent's mapping before its memory is given back."""

    def take(self, nbytes: int, use: int) -> tuple[Extent, int, int]:
        """Return extent, slot, and the use it was in before, for a message of `nbytes`.

        Args:
            nbytes: Its size.
            use: What its readers will release: the number of the message, from 1.

        Raises:
            MemoryCapError: The graph's cap, or the machine's memory, does not allow it.
        """
        if nbytes > self._capacity or not self._extents:
            self._grow(max(nbytes, self._capacity))
        if self._retired:
            self._punch_retired()
        busy, free = self._busy, self._free
        while busy and self._released(*busy[0], use):
            self._put_free(0)
        if not free and busy and self._released(*busy[-1], use):
            self._put_free(-1)
        if not free:
            self._reclaim(use)
        if not free:
            self._add_extent(self._capacity, self._extents[-1].slots * 2)
        extent, slot = free[-1]
        key = (extent.index, slot)
        if key not in self._uses:
            self._reserve(extent, slot, nbytes)
        before = extent.words[slot]
        # From here to the last call Python handles no signal: Ctrl-C finds it taken, or not.
        self._uses[key] = extent.words[extent.first_use + slot] = use
        del free[-1]
        busy.append((extent, slot))
        return extent, slot, before

    def give_back(self, extent: Extent, slot: int, before: int) -> None:
        """Take back a slot that was taken and never published: it is as its readers left it."""
        self._uses[extent.index, slot] = extent.words[extent.first_use + slot] = before

    def _released(self, extent: Extent, slot: int, next_use: int = 0) -> bool:
        """Tell whether all readers are done with a slot.

        Args:
            extent: Where.
            slot: Which.
            next_use: A message that is not sent. What was taken for it is its readers', too: Ctrl-C
                has lost it.
        """
        use = self._uses[extent.index, slot]
        words, slots = extent.words, extent.slots
        return use == next_use or all(
            words[reader * slots + slot] == use for reader in range(self._num_readers)
        )

    def _put_free(self, number: int) -> None:
        """Let a busy slot be taken again, unless it is outgrown: messages may not fit it."""
        item = self._busy[number]
        # No call, after which Ctrl-C could come: it is on one of the lists.
        if item[0].capacity == self._capacity:
            self._free += (item,)
        del self._busy[number]

    @whole
    def _reclaim(self, next_use: int) -> None:
        for number in reversed(range(len(self._busy))):
            if self._released(*self._busy[number], next_use):
                self._put_free(number)

    @whole
    def _grow(self, nbytes: int) -> None:
        """Have slots that hold `nbytes` from now on; older ones are freed as they empty."""
        capacity = self._capacity
        if self._extents:
            capacity = at.slot_capacity(max(nbytes, 2 * capacity))
        elif nbytes > capacity:
            capacity = at.slot_capacity(nbytes)
        self._check_cap(capacity, self._idle_bytes())
        old, self._extents = self._extents, []
        try:
            self._add_extent(capacity, self._spec.depth + 1)
        except BaseException:
            self._extents = old
            raise
        self._capacity = capacity
        for extent in old:
            self._graph.words[self._row(extent) + 3] = 1
        self._retired += old
        self._free = [item for item in self._free if item[0].capacity == capacity]

    def _row(self, extent: Extent) -> int:
        return (self._place.control + at.EXTENT_TABLE) // 8 + extent.index * at.EXTENT_WORDS

    @whole
    def _add_extent(self, capacity: int, slots: int) -> None:
        control = self._place.control // 8
        words = self._graph.words
        index = words[control + at.EXTENTS]
        size = at.extent_head(self._num_readers, slots, capacity) + slots * at.stride(capacity)
        start = round_up(self._end, at.alignment(capacity))
        if index >= at.MAX_EXTENTS or start + size > self._place.region + at.REGION:
            msg = f"channel {self._spec.label} holds more pinned values than it can address"
            raise MemoryCapError(msg)
        extent = Extent(self._graph, index, start, capacity, slots, self._num_readers)
        self._end = start + size
        row = self._row(extent)
        words[row], words[row + 1], words[row + 2], words[row + 3] = (
            extent.offset,
            capacity,
            slots,
            0,
        )
        words[control + at.EXTENTS] = index + 1
        self._extents.append(extent)
        self._free += [(extent, slot) for slot in reversed(range(slots))]

    def _reserve(self, extent: Extent, slot: int, nbytes: int) -> None:
        """Have memory for a slot that was never used, and count it."""
        self._check_cap(extent.capacity)
        extent.mapping.collapse(extent.slot(slot), at.slot_capacity(nbytes))
        self._graph.words[self._place.control // 8 + at.RESERVED] += extent.capacity

    def _held(self) -> set[int]:
        """Return the extents of which a reader still reads or holds a slot."""
        return {extent.index for extent, slot in self._busy if not self._released(extent, slot)}

    def _idle_bytes(self) -> int:
        """Return the bytes that go back as soon as the current extents are outgrown."""
        held = self._held()
        idle = {e.index: e.capacity for e in self._extents if e.index not in held}
        return sum(idle.get(index, 0) for index, _ in self._uses)

    def _check_cap(self, nbytes: int, freed: int = 0) -> None:
        label = self._spec.label
        require_memory(nbytes, f"a slot of channel {label}")
        if self._cap_bytes is None:
            return
        reserved = self._graph.reserved_bytes()
        if sum(reserved.values()) - freed + nbytes > self._cap_bytes:
            largest = sorted(reserved.items(), key=lambda item: -item[1])[:3]
            users = ", ".join(f"{self._graph.channels[i].label}: {used}" for i, used in largest)
            msg = (
                f"channel {label} wants {nbytes} more bytes and the graph is capped at "
                f"_max_memory_bytes={self._cap_bytes}. Largest users: {users}. {self._holders()}"
                "Raise the cap, send less, or let go of results still held"
            )
            raise MemoryCapError(msg)

    def _holders(self) -> str:
        """Say whose values could not give their memory back."""
        from compiled_dag.channel.holders import holders  # noqa: PLC0415  where no room is only

        try:
            told = holders(self._graph)
        except OSError as error:
            told = f"who holds it cannot be looked at ({error})"
        return f"{told}. " if told else ""

    @whole
    def _punch_retired(self) -> None:
        """Give back the memory of outgrown extents that nobody reads any more."""
        held = self._held()
        for extent in [extent for extent in self._retired if extent.index not in held]:
            if self.on_punch is not None:
                self.on_punch(extent.mapping)
            # The release words stay: a slow reader may still look at them through its mapping.
            self._graph.segment.punch(
                extent.offset + extent.first_slot, extent.size - extent.first_slot
            )
            self._retired.remove(extent)
            used = [key for key in self._uses if key[0] == extent.index]
            self._busy = deque(item for item in self._busy if item[0] is not extent)
            for key in used:
                del self._uses[key]
            control = self._place.control // 8
            self._graph.words[control + at.RESERVED] -= len(used) * extent.capacity
