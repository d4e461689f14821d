"""What this process has of a group on a shared GPU, from joining to the end of it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from collective.cuda_area import ENDED, IMPORTED, PID
from compiled_dag.cuda.driver import Selecting
from compiled_dag.cuda.rescue import Rescue
from compiled_dag.cuda.ring import LOOK_S, closing_deadline, is_dead
from compiled_dag.shm.futex import fence
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from collective.cuda_area import Area
    from collective.cuda_buffer import OwnBuffer
    from collective.cuda_peers import Peer
    from collective.header import GroupHeader
    from collective.standing import Patience
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Stream
    from compiled_dag.shm.waiter import Waiter

_lock = threading.Lock()
_left: list[End] = []
"""Those whose memory others may still have open."""


class End:
    """One rank's memory, and what it has open. Any thread may end it."""

    def __init__(
        self,
        header: GroupHeader,
        area: Area,
        waiter: Waiter | Patience,
        rank: int,
        device: Device,
        own: OwnBuffer,
    ) -> None:
        """Own what this rank exports, and whatever is added to `peers`."""
        self.device = device
        self.own = own
        self.peers: list[Peer] = []
        self.is_over = False
        self._header = header
        self._area = area
        self._waiter = waiter
        self._rank = rank
        self._line = area.line(rank)
        self._closed = False
        """Whether nothing of others is open."""
        self._lock = threading.Lock()
        self._rescue = Rescue(device, header.words)
        self._rescue.add(self)

    def release(self, stream: Stream) -> None:
        """Record the events of ranks that have died; see `compiled_dag.cuda.rescue`."""
        for peer in self.peers:
            if is_dead(self._area.words[self._area.line(peer.rank) + PID]):
                peer.release(stream)

    def check_open(self) -> None:
        """Note that something is about to be opened; refuse it in a group that has ended.

        Who frees looks at the state, fences, and looks at the note; this is the other way round. So
        one of both sees the other.

        Raises:
            ChannelClosedError: The driver has ended the group.
        """
        self._area.words[self._line + IMPORTED] = 1
        fence()
        self._header.guard()

    def leave(self, *, together: bool = False) -> None:
        """Close what is others', then free what is ours. Idempotent.

        Waits a moment for the GPU and for peers if they let go too: `together`, or because the
        driver has ended the group. What is not free by then is left (`sweep`).
        """
        if not self.is_over:
            self.is_over = True
            with Selecting(self.device.driver):
                self.own.mark()
            self._rescue.close()
        waits = together or self._header.stopped()
        deadline = closing_deadline() if waits else time.monotonic()
        is_free = self.let_go(deadline)
        with _lock:
            if is_free and self in _left:
                _left.remove(self)
            elif not is_free and self not in _left:
                _left.append(self)
        sweep()

    def let_go(self, deadline: float) -> bool:
        """Do both as far as it can be done by `deadline`; returns whether it is done."""
        with self._lock, Selecting(self.device.driver):
            if not self._closed:
                if not self._wait(self.own.is_idle, deadline):
                    return False
                for peer in self.peers:
                    peer.close()
                self._closed = True
                self._area.words[self._line + ENDED] = 1
                self._header.ring_all()
            if not self._wait(self._may_free, deadline):
                return False
            self.own.free()
            return True

    def _wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        if ready() or time.monotonic() >= deadline:
            return ready()
        site = Site(calm=True, slice_s=LOOK_S)
        return self._waiter.until(ready, _no_guard, deadline, site)

    def _may_free(self) -> bool:
        """Tell whether no other rank has anything of ours open, nor will have."""
        stopped = self._header.stopped()
        fence()
        words, area = self._area.words, self._area
        for rank in range(area.world_size):
            line = area.line(rank)
            if rank == self._rank or words[line + ENDED]:
                continue
            never = stopped and not words[line + IMPORTED]
            if not never and not is_dead(words[line + PID]):
                return False
        return True


def sweep() -> None:
    """Free what earlier groups have left, as far as it can be by now."""
    with _lock:
        ends = list(_left)
    for end in ends:
        if end.let_go(0.0):
            with _lock:
                if end in _left:
                    _left.remove(end)


def _no_guard() -> None:
    """The group has ended already."""
