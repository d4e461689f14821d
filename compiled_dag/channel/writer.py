"""The writing end of a channel: stage a value, then publish it to all readers.

One write serves any number of readers. Nothing here waits: the driver's window makes sure that a
descriptor slot is free, and where a payload slot is pinned by somebody's view another is taken.
The fast path is flat on purpose: an int takes about 0.6 us from call to publication.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel import layout as at
from compiled_dag.channel.body import body_of
from compiled_dag.channel.codec import Encoded, Kind, copied, encode
from compiled_dag.channel.interface import ChannelInterface
from compiled_dag.channel.pool import Extent, Pool
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence, futex_wake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.body import Body
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.pickling import Buffer

_INT, _NONE, _FLOAT = int(Kind.INT), int(Kind.NONE), int(Kind.FLOAT)
_IN_PAYLOAD: Final = 1 << 8
_MAX_INT: Final = (1 << 63) - 1
_IMMUTABLE: Final = frozenset({int, float, bool, complex, str, bytes, type(None)})


class Writer(ChannelInterface):
    """The one writer of a channel."""

    def __init__(
        self,
        graph: GraphSegment,
        spec: at.ChannelSpec,
        *,
        slot_bytes: int,
        cap_bytes: int | None = None,
    ) -> None:
        """Open the writing end.

        Args:
            graph: The graph's segment.
            spec: The channel.
            slot_bytes: First capacity of a payload slot.
            cap_bytes: Cap on the payload memory of the whole graph, or None.
        """
        self.spec = spec
        self.graph = graph
        place = graph.layout.channels[spec.index]
        self._pool = Pool(graph, spec, slot_bytes, cap_bytes)
        self._view = graph.view
        self._words = graph.words
        self._signed = graph.view.cast("q")
        self._doubles = graph.view.cast("d")
        self._bases = [(place.ring + slot * at.SLOT) // 8 for slot in range(spec.depth)]
        self._depth = spec.depth
        self._sequence_word = place.control // 8 + at.SEQUENCE
        self._ack_words = [place.reader(number) // 8 for number in range(len(spec.readers))]
        self._most_inline = at.INLINE
        """Largest body that needs no payload slot."""
        self._taken: tuple[Extent, int, int] | None = None
        self._lent: deque[tuple[int, Sequence[Any]]] = deque()
        """What is lent with which message (see `Encoded.lent`)."""
        self._last_lent = 0
        """Number of the last such message."""
        self.on_lent: Callable[[], object] | None = None
        """Called when something is lent: whoever may let go of it before the next message."""
        board = graph.board
        self._bells = board.bells
        processes = {graph.processes[reader] for reader in spec.readers}
        self._readers = tuple(
            (board.bell_index(process), board.bell_address(process)) for process in processes
        )
        self._lock = threading.Lock()

    def write(self, value: Any) -> None:
        """Send `value` to every reader.

        Raises:
            TypeError: The value cannot be pickled; nothing was sent.
            MemoryCapError: There is no memory for it; nothing was sent.
        """
        self.stage(value)
        self.publish()

    def stage(self, value: Any) -> None:
        """Write `value` into the next slot, unseen by the readers until `publish`.

        Raises:
            TypeError: The value cannot be pickled.
            MemoryCapError: There is no memory for it.
        """
        words = self._words
        base = self._bases[words[self._sequence_word] % self._depth]
        kind = value.__class__
        if kind is int:
            if -_MAX_INT <= value <= _MAX_INT:
                self._signed[base + 1] = value
                words[base] = _INT
                return
        elif value is None:
            words[base] = _NONE
            return
        elif kind is float:
            self._doubles[base + 1] = value
            words[base] = _FLOAT
            return
        self._stage_encoded(base, encode(value))

    def stage_encoded(self, encoded: Encoded) -> None:
        """Write a value that is encoded already into the next slot, as `stage` does.

        Raises:
            MemoryCapError: There is no memory for it.
        """
        base = self._bases[self._words[self._sequence_word] % self._depth]
        self._stage_encoded(base, encoded)

    def capture(self, value: Any) -> Any:
        """Return `value` as it is now, for `stage_captured`, whatever becomes of it meanwhile.

        Raises:
            TypeError: The value cannot be pickled.
        """
        return value if value.__class__ in _IMMUTABLE else copied(encode(value))

    def stage_captured(self, captured: Any) -> None:
        """Write what `capture` returned, as `stage` does; raises MemoryCapError as that does."""
        if captured.__class__ is Encoded:
            self.stage_encoded(captured)
        else:
            self.stage(captured)

    def publish(self) -> None:
        """Make the staged value visible and wake the readers."""
        words, word = self._words, self._sequence_word
        sequence = words[word] + 1
        self._taken = None
        if not STORES_STAY_IN_ORDER:
            fence()
        words[word] = sequence  # before this an interrupt leaves nothing published, after it all
        # On x86-64 all the fence that is needed, in half the time of a `with` (see futex.py). What
        # Ctrl-C leaves locked between the two is unlocked by the next message.
        self._lock.acquire(False)  # by keyword it takes twice as long
        self._lock.release()
        if not STORES_STAY_IN_ORDER:
            fence()
        bells = self._bells
        for bell, address in self._readers:
            if bells[bell]:
                bells[bell] = 0
                futex_wake(address)
        if self._lent:
            self.take_back()

    @property
    def may_take_back(self) -> bool:
        """Whether `take_back` would let go of everything. Any thread may ask."""
        return self._last_lent <= self._num_taken()

    def take_back(self) -> None:
        """Let go of what was lent with messages that all readers have taken.

        Every `publish` does; after the last one, whoever is told by `on_lent`.
        """
        taken, lent = self._num_taken(), self._lent
        while lent and lent[0][0] <= taken:
            lent.popleft()

    def take_all_back(self) -> None:
        """Let go of everything that was lent: nobody reads any more."""
        self._lent.clear()

    def _num_taken(self) -> int:
        return min([self._words[word] for word in self._ack_words])

    def published(self) -> int:
        """Return how many messages were published: the shared word itself, so that is exact."""
        return self._words[self._sequence_word]

    def abandon(self) -> None:
        """Drop a staged value that will not be published."""
        if self._taken is not None:
            self._pool.give_back(*self._taken)
            self._taken = None
        if self._lent and self._lent[-1][0] > self.published():
            self._lent.pop()
            self._last_lent = self._lent[-1][0] if self._lent else 0

    def _stage_encoded(self, base: int, encoded: Encoded) -> None:
        kind, head, buffers, private, lent = encoded
        words = self._words
        body = body_of(len(head), tuple(map(len, buffers)), private) if buffers else None
        size = len(head) if body is None else body.size
        if size <= self._most_inline:
            target, start = self._view, base * 8 + at.DESCRIPTOR
            words[base] = kind
        else:
            use = self.published() + 1
            taken = self._taken = self._pool.take(size, use)
            extent, slot, _ = taken
            target, start = extent.view, extent.slot(slot)
            words[base] = kind | _IN_PAYLOAD
            words[base + 4] = extent.index << 32 | slot
            words[base + 5] = use
        words[base + 1] = len(head)
        words[base + 2] = len(buffers)
        words[base + 3] = size
        if body is not None:
            self._copy_in(target[start : start + size], body, head, buffers)
        else:
            target[start : start + size] = head
        if lent:
            self._last_lent = self.published() + 1
            self._lent.append((self._last_lent, lent))
            if self.on_lent is not None:
                self.on_lent()

    def _copy_in(
        self, target: memoryview, body: Body, head: bytes, buffers: Sequence[Buffer]
    ) -> None:
        """Copy a message that has buffers.

        Args:
            target: Where to.
            body: Where its parts are to be.
            head: Its head.
            buffers: Its buffers.
        """
        target[: len(body.table)] = body.table
        target[body.head] = head
        for place, buffer in zip(body.buffers, buffers, strict=True):
            target[place] = buffer
