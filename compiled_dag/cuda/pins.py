"""Memory of the host that one process's GPU copies from or to by itself, while it does.

Payload slots of a channel are pinned one by one, when the first tensor is copied from or to them:
what is pinned takes memory at once. They are unpinned before their memory is given back, and when
the graph ends, but never while the GPU is at work in them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compiled_dag.cuda.driver import Event, Pointer, Stream
    from compiled_dag.cuda.ring import Seat
    from compiled_dag.shm.segment import Mapping


class Pins:
    """What one end of one channel has pinned, and the copies that are under way there."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.driver = self._driver = seat.device.driver
        self._pinned: dict[Pointer, Mapping] = {}
        self._outgrown: list[Pointer] = []
        """To be unpinned when no copy is under way."""
        self._copies: deque[tuple[Event, Any]] = deque()
        """With what is to be kept until they are done."""
        self._spare: list[Event] = []

    def pin(self, mapping: Mapping, offset: int, nbytes: int) -> None:
        """Pin a slot, unless it is.

        Raises:
            Exception: The driver's, where pinning is refused.
        """
        address = mapping.address + offset
        if address not in self._pinned:
            self._driver.register(address, nbytes)
            self._pinned[address] = mapping

    def note(self, stream: Stream, kept: Any) -> Event:
        """Note that copies are in a stream, and keep an object until they are done.

        Returns:
            The event that is done when they are.
        """
        event = self._spare.pop() if self._spare else self._driver.make_event(is_shared=False)
        self._driver.record(event, stream)
        self._copies.append((event, kept))
        return event

    def sweep(self) -> None:
        """Let go of what copies were made from that are done by now."""
        copies = self._copies
        while copies and self._driver.is_done(copies[0][0]):
            self._spare.append(copies.popleft()[0])
        if self._outgrown and not copies:
            self._unpin(self._outgrown)
            self._outgrown = []

    def drop(self, mapping: Mapping) -> None:
        """Unpin what is in a mapping, as soon as no copy is under way."""
        self._outgrown += [at for at, where in self._pinned.items() if where is mapping]
        self.sweep()

    def keep_only(self, mappings: Iterable[Mapping]) -> None:
        """Drop all other mappings."""
        kept = {mapping.address for mapping in mappings}
        for mapping in {one.address: one for one in self._pinned.values()}.values():
            if mapping.address not in kept:
                self.drop(mapping)

    def _unpin(self, addresses: Iterable[Pointer]) -> None:
        for address in addresses:
            if self._pinned.pop(address, None) is not None:
                self._driver.unregister(address)

    # --- the end (`leaving.Ring`)

    def close_imports(self, deadline: float) -> None:
        """Unpin everything once the GPU is done there; what it is not done with stays pinned."""
        if not self._seat.wait(self._is_idle, deadline):
            return
        self._outgrown = []
        self._unpin(list(self._pinned))
        events, self._spare = self._spare, []
        for event in events:
            self._driver.destroy_event(event)

    def _is_idle(self) -> bool:
        self.sweep()
        return not self._copies

    def free_exports(self, deadline: float) -> bool:
        """Return whether everything is unpinned, after another try."""
        if self._copies or self._pinned:
            self.close_imports(deadline)
        return not self._copies and not self._pinned
