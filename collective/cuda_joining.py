"""How ranks that share a GPU open each other's memory, or find that they cannot.

Joining is the probe: what is opened and tried here is what operations use from then on. Every rank
shows its GPU, and what it exports; then all open all, read a pattern by way of memory and event,
and show what was refused; then all look at what all have shown, and come to the same end. A sandbox
may refuse any of it, MIG instances share no memory, and devices of one name need not be one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from collective.cuda_area import ENDED, PHASE, PID, REFUSAL, UUID, VERDICT, Area
from collective.cuda_buffer import OwnBuffer
from collective.cuda_end import End, sweep
from collective.cuda_group import CudaIpcGroup
from collective.cuda_peers import Peer
from compiled_dag.cuda.device import open_device
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.ring import LOOK_S
from compiled_dag.errors import DeviceError, MemoryCapError
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from collective.header import GroupHeader
    from collective.preflight import Preflight
    from collective.standing import Patience
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Event
    from compiled_dag.shm.waiter import Waiter

_PATTERN: Final = bytes(range(1, 129)) * 8
_GPU_S: Final = 5.0
"""A GPU that is not done by then counts as one that refuses."""
_SHOWN, _TRIED, _OVER = 1, 2, 3
"""Phases."""


@dataclass(slots=True, kw_only=True)
class _Joining:
    """One rank that joins."""

    header: GroupHeader
    area: Area
    rank: int
    waiter: Waiter | Patience
    deadline: float

    def meet(self, phase: int) -> None:
        """Wait until all ranks have come to a phase.

        Raises:
            ChannelClosedError: The driver has given the group up.
            TimeoutError: Not all came in time.
        """
        area, lines = self.area, range(self.area.world_size)
        words = area.words
        words[area.line(self.rank) + PHASE] = phase
        self.header.ring_all()

        def are_here() -> bool:
            return all(words[area.line(rank) + PHASE] >= phase for rank in lines)

        if not self.waiter.until(are_here, self.header.guard, self.deadline):
            msg = f"not all ranks came to phase {phase} of opening the memory of their GPU"
            raise TimeoutError(msg)

    def refused(self) -> str:
        """Return what a rank has shown to be refused; the first one's, empty if none has."""
        for rank in range(self.area.world_size):
            text = self.area.text(rank, REFUSAL)
            if text:
                return f"rank {rank} failed at {text}"
        return ""

    def several(self) -> str:
        """Return which ranks do not share a GPU, empty if all do."""
        uuids = [self.area.text(rank, UUID) for rank in range(self.area.world_size)]
        for rank, uuid in enumerate(uuids):
            if uuid != uuids[0]:
                return f"rank 0 is on {uuids[0]}, and rank {rank} on {uuid}"
        return ""

    def attempt(self, what: str, device: Device, run: Callable[[], None]) -> bool:
        """Run something, and show why it failed, if it has."""
        try:
            with Translating(device.driver, what):
                run()
        except (DeviceError, MemoryCapError, OSError) as error:
            if isinstance(error, DeviceError) and error.is_lost:
                raise
            text = str(error)
            self.refuse(text if text.startswith(what) else f"{what}: {text}", device)
            return False
        return True

    def opens_nothing(self) -> None:
        """Say that this rank has nothing open, and never will."""
        self.area.words[self.area.line(self.rank) + ENDED] = 1

    def refuse(self, text: str, device: Device | None = None) -> None:
        """Show why this rank cannot."""
        if device is not None and " MIG " in device.name:
            text += " (MIG instances share no memory)"
        self.area.show_text(self.rank, REFUSAL, text)


def join(
    header: GroupHeader,
    preflight: Preflight,
    rank: int,
    waiter: Waiter | Patience,
    timeout_s: float,
) -> CudaIpcGroup | str:
    """Be a rank of the group that has this header.

    Returns:
        The group; or why there can be none, the same on all ranks.

    Raises:
        ChannelClosedError: The driver has given the group up.
        TimeoutError: Not all ranks came in time.
        DeviceError: The CUDA context is lost.
    """
    sweep()
    joining = _Joining(
        header=header,
        area=Area(header),
        rank=rank,
        waiter=waiter,
        deadline=time.monotonic() + timeout_s,
    )
    joining.area.words[joining.area.line(rank) + PID] = os.getpid()
    end = _show(joining)
    try:
        why = _settle(joining, end)
    except BaseException:
        if end is not None:
            end.leave()
        raise
    if not why:
        assert end is not None, "nobody was refused anything"
        return CudaIpcGroup(end, preflight, rank)
    if not rank:
        joining.area.show_text(rank, VERDICT, why)
    if end is not None:
        end.leave(together=True)
    return why


def _show(joining: _Joining) -> End | None:
    """Make what this rank exports, with a pattern in it; None if something is refused."""
    try:
        device = open_device()
    except (DeviceError, MemoryCapError) as error:
        joining.refuse(f"using its GPU: {error}")
        joining.opens_nothing()
        return None
    made: list[OwnBuffer] = []

    def export() -> None:
        made.append(OwnBuffer(device, joining.area, joining.rank))
        made[0].lay(device.from_host(_PATTERN), 0, ())

    joining.attempt("exporting GPU memory and events", device, export)
    joining.area.show_text(joining.rank, UUID, device.uuid)
    if not made:
        joining.opens_nothing()
        return None
    area, header = joining.area, joining.header
    return End(header, area, joining.waiter, joining.rank, device, made[0])


def _settle(joining: _Joining, end: End | None) -> str:
    """Find with all other ranks whether they can share their GPU; returns why not."""
    if end is not None:
        device, ready = end.device, end.own.ready[0]
        # Before others have their streams wait for that: if this process dies it may never be done.
        joining.attempt("laying a pattern", device, lambda: _await_gpu(joining, device, ready))
    joining.meet(_SHOWN)
    why = joining.refused() or joining.several()
    if not why:
        assert end is not None, "it would have refused"
        _open_all(joining, end)
        joining.meet(_TRIED)
        why = joining.refused()
    if why:
        # Nobody opens anything any more, and all know the texts that are here.
        joining.meet(_OVER)
    return why


def _open_all(joining: _Joining, end: End) -> None:
    end.check_open()
    device = end.device
    for rank in range(joining.area.world_size):
        if rank == joining.rank:
            continue
        peer = Peer(device.driver, joining.area, rank, joining.rank)
        end.peers.append(peer)

        def open_it(peer: Peer = peer) -> None:
            peer.open_events()
            _try(joining, end, peer)

        if not joining.attempt(f"opening GPU memory and events of rank {rank}", device, open_it):
            return


def _try(joining: _Joining, end: End, peer: Peer) -> None:
    """Read a peer's pattern, as operations read tensors.

    Raises:
        DeviceError: It is not there, or the GPU does not come to an end.
    """
    device, driver = end.device, end.device.driver
    stream, done = device.stream(), end.own.done[0]
    copied = device.new(("uint8", (len(_PATTERN),)))
    source = peer.place(0)
    driver.wait(stream, peer.ready[0])
    driver.copy(copied.data_ptr(), source, len(_PATTERN), stream)
    driver.record(done, stream)
    _await_gpu(joining, device, done)
    if device.to_host(copied) != _PATTERN:
        raise DeviceError("what was copied is not what was there")


def _await_gpu(joining: _Joining, device: Device, event: Event) -> None:
    """Wait for an event of this process.

    Raises:
        DeviceError: It is not done in time.
        ChannelClosedError: The driver has given the group up.
    """
    deadline, site = time.monotonic() + _GPU_S, Site(calm=True, slice_s=LOOK_S)
    if not joining.waiter.until(
        lambda: device.driver.is_done(event), joining.header.guard, deadline, site
    ):
        raise DeviceError(f"the GPU was not done within {_GPU_S} s")
