"""Where everything is in a graph's segment. Pure arithmetic.

::

    page 0                   graph header   state, mask of what is traced
    then, 128 bytes each     participants   progress: execution, step, since (ns); process id; rows
    then, page-aligned       traces         what each actor did lately (`compiled_dag.trace.ring`)
    then, page-aligned       channels       one control area per channel
    (c + 1) << 42            payloads       4 TiB of sparse room per channel c; the upper half is
                                            for a ring in pinned memory (`cuda.ring_memory`)

    control area of a channel with R readers and depth D
      +0      writer's line    u64 sequence, u64 extents, u64 reserved bytes, u64 bytes of what
                               GPUs copy tensors to: its ring, or the buffers that are sent from
      +128    extent table     64 x (u64 offset, u64 capacity, u64 slots, u64 retired)
      +2176   R x 128          reader's line: u64 sequence consumed (its release word), u64 message
                               it receives by other means << 1 | whether it does (`rendezvous`)
      ...     page-aligned     D x 4096: descriptor (64 bytes) and inline space (4032 bytes)
      ...     page-aligned     where GPUs copy the tensors, its ring's area (`ring_area`)

    descriptor (8 u64 words): kind | in payload << 8, integer or length of the head,
      number of buffers, bytes in all, extent << 32 | slot, message (from 1), -, -

    body of a message, inline or in a payload slot: see `body`

    extent (a run of payload slots of one capacity; aligned to pages, or to huge ones)
      +0      release words    R x slots x u64: reader r is done with message n in slot s
              use words        slots x u64: the message that slot s was last given to, from 1
      ...     aligned          slots, each aligned

Who writes what: the graph header belongs to the driver; a participant's line to that
participant; a channel's first line, extent table, descriptors, use words and payload to its writer;
a reader's line and its release words to that reader; a trace to its actor. Every word has one
writer, so nothing is ever locked.

Order: body, descriptor, then sequence (the reader looks at the sequence first). A descriptor slot
is free again when the execution D earlier is fetched, which the driver's window guarantees before
it submits: writers never wait. A payload slot is free when every reader's release word shows its
last use, however late that is; the writer takes another one meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from compiled_dag.channel.ring_area import RingArea, ring_slots
from compiled_dag.channel.transport import UNHINTED, Transport
from compiled_dag.shm import state
from compiled_dag.shm.segment import HUGE, PAGE, round_up

LINE: Final = 128

# graph header, u64 indices
STATE_WORD, TRACE_MASK_WORD = state.STATE_WORD, 32
OPEN, CLOSED, BROKEN = state.OPEN, state.CLOSED, state.BROKEN

# participant line, u64 indices from its start
EXECUTION, STEP, SINCE_NS, PID, ROWS = 0, 1, 2, 8, 9
IDLE_STEP: Final = 0

# channel reader's line, u64 indices from its start
CONSUMED, RECEIVES = 0, 1

# channel writer's line, u64 indices from its start
SEQUENCE, EXTENTS, RESERVED, RING_BYTES = 0, 1, 2, 3

EXTENT_TABLE: Final = LINE
EXTENT_WORDS: Final = 4
MAX_EXTENTS: Final = 64
READERS: Final = EXTENT_TABLE + MAX_EXTENTS * EXTENT_WORDS * 8

SLOT: Final = 4096
DESCRIPTOR: Final = 64
INLINE: Final = SLOT - DESCRIPTOR

REGION: Final = 1 << 42

TRACE_BYTES: Final = 64 * 1024
"""Of each actor's trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """One value, or a few, on its way from one participant to others."""

    index: int
    writer: int
    """Participant; 0 is the driver."""
    readers: tuple[int, ...]
    depth: int
    """Descriptor slots: the executions in flight."""
    label: str
    """What messages call it, for example ``Worker.forward#3``."""
    node: int | None = None
    """The node whose value it carries; None if it only starts actors that wait for nobody."""
    beside: tuple[int, ...] = ()
    """Further nodes, whose values travel with that one in one message (`passes.channels`)."""
    transport: Transport = UNHINTED

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes whose values it carries."""
        return () if self.node is None else (self.node, *self.beside)

    @property
    def ends(self) -> tuple[int, ...]:
        """Writer and readers, in order: the ranks, where a process group carries its tensors."""
        return tuple(sorted((self.writer, *self.readers)))


@dataclass(frozen=True, slots=True)
class ChannelPlace:
    """Byte offsets of one channel in the segment."""

    control: int
    ring: int
    region: int
    device: RingArea | None = None

    def reader(self, position: int) -> int:
        """Return where the line of the reader at `position` is."""
        return self.control + READERS + position * LINE


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets of everything in one graph's segment."""

    participants: int
    traces: int
    channels: tuple[ChannelPlace, ...]
    control_bytes: int
    """The part that every participant maps."""
    size: int
    """Of the whole sparse file."""

    @classmethod
    def of(cls, num_participants: int, channels: tuple[ChannelSpec, ...]) -> Layout:
        """Place everything."""
        participants = PAGE
        traces = round_up(participants + num_participants * LINE)
        at = traces + (num_participants - 1) * TRACE_BYTES
        places = []
        for spec in channels:
            ring = round_up(at + READERS + len(spec.readers) * LINE)
            end = ring + spec.depth * SLOT
            device = None
            if spec.transport.has_ring:
                device = RingArea(round_up(end), ring_slots(spec.depth), len(spec.readers))
                end = device.start + device.size
            places.append(ChannelPlace(at, ring, (spec.index + 1) * REGION, device))
            at = round_up(end)
        return cls(participants, traces, tuple(places), at, (len(channels) + 1) * REGION)

    def participant(self, index: int) -> int:
        """Return where the line of a participant is."""
        return self.participants + index * LINE

    def trace(self, index: int) -> int:
        """Return where the trace of a participant other than the driver is."""
        return self.traces + (index - 1) * TRACE_BYTES


def slot_capacity(nbytes: int) -> int:
    """Return the size of slots for messages of `nbytes`: whole pages.

    From 1 MiB on they are in huge ones (`Mapping.collapse`), as far as half of one is used.
    """
    whole, rest = divmod(nbytes, HUGE)
    return whole * HUGE + (HUGE if rest >= HUGE // 2 else round_up(rest))


def alignment(capacity: int) -> int:
    """Return what extents of slots of `capacity` bytes, and the slots in them, are aligned to."""
    return HUGE if capacity >= HUGE else PAGE


def stride(capacity: int) -> int:
    """Return how far slots of `capacity` bytes are from each other; between them is no memory."""
    return round_up(capacity, alignment(capacity))


def extent_head(num_readers: int, slots: int, capacity: int) -> int:
    """Return how many bytes there are in an extent before its first slot."""
    return round_up(words_bytes(num_readers, slots), alignment(capacity))


def words_bytes(num_readers: int, slots: int) -> int:
    """Return how many of them are taken by the words of its slots."""
    return round_up((num_readers + 1) * slots * 8)
