"""What is in a channel's payload slots, seen from outside: read from the shared words alone.

Nothing is stopped for it. While values travel it is a moment's picture, each word true by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compiled_dag.channel import layout as at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.channel.graph_segment import GraphSegment


class Held(NamedTuple):
    """A value that a reader has read and not let go of, so that its slot is pinned."""

    reader: int
    """Participant."""
    execution: int
    size_bytes: int


class Usage(NamedTuple):
    """The memory of one channel."""

    slot_bytes: int
    """Capacity of a payload slot now; 0 before the first value that needs one."""
    slots: int
    """Payload slots that can be used now."""
    reserved_bytes: int
    """Payload slots that were ever filled, and so take memory."""
    used_bytes: int
    """Of those, what somebody still has to read, or holds."""
    unread: int
    """Values that were written and that some reader has not read."""
    held: tuple[Held, ...]
    ring_bytes: int
    """What there is for GPUs to copy tensors to, beside that."""


def usage(graph: GraphSegment, index: int) -> Usage:
    """Look at channel number `index`.

    Raises:
        OSError: The kernel refused to map its words.
    """
    words, place, spec = graph.words, graph.layout.channels[index], graph.channels[index]
    control = place.control // 8
    slot_bytes = slots = used_bytes = 0
    held: list[Held] = []
    for row in _extents(graph, index):
        offset, capacity, num_slots, retired = words[row : row + at.EXTENT_WORDS]
        if not retired:
            slot_bytes, slots = capacity, slots + num_slots
        head = graph.segment.map(offset, at.words_bytes(len(spec.readers), num_slots))
        rows = head.view().cast("Q")
        for slot in range(num_slots):
            message = rows[len(spec.readers) * num_slots + slot]
            late = [position for position in range(len(spec.readers))
                    if rows[position * num_slots + slot] != message]  # fmt: skip
            used_bytes += capacity if late else 0
            held += [
                Held(spec.readers[position], message - 1, capacity)
                for position in late
                if words[place.reader(position) // 8] >= message
            ]
    slowest = min(words[place.reader(position) // 8] for position in range(len(spec.readers)))
    return Usage(
        slot_bytes=slot_bytes,
        slots=slots,
        reserved_bytes=words[control + at.RESERVED],
        used_bytes=used_bytes,
        unread=words[control + at.SEQUENCE] - slowest,
        held=tuple(held),
        ring_bytes=words[control + at.RING_BYTES],
    )


def _extents(graph: GraphSegment, index: int) -> Iterator[int]:
    """Yield the word index of every row of a channel's extent table that is filled in."""
    control = graph.layout.channels[index].control
    first = (control + at.EXTENT_TABLE) // 8
    for number in range(graph.words[control // 8 + at.EXTENTS]):
        yield first + number * at.EXTENT_WORDS
