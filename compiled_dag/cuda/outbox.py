"""What a process group sends from while methods go on: two buffers for each channel, in turn.

Sent on a stream of its own, a tensor would race with a method that changes in place what an
earlier call has returned, and with a recording that is played again (`capturing`). So a value's
tensors are first copied here, on the current stream, which is short, and are sent from here:

    current stream        wait for sent[b]; copy into buffer b; record filled
    stream of the sends   wait for filled; what the group sends; record sent[b]

A buffer is filled again only behind the send from it, and it is the current stream that waits for
that: no host does. Every value waits for the send of the last but one, so the sends of a channel
are never more than two behind the current stream, which is as far behind the host as `flow` allows.

The memory is torch's, ordered with the stream that was current, and lent to that of the sends. So
what was outgrown, or is dropped with its graph, goes to other tensors once it has been sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from compiled_dag.channel import layout as at
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.ring import ALIGN, offsets
from compiled_dag.cuda.ring_memory import check_cap
from compiled_dag.shm.segment import round_up

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    import torch

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Event, Stream

BUFFERS: Final = 2


class Departure(NamedTuple):
    """The stream of the sends, and events whose owner destroys them."""

    stream: Stream
    filled: Event
    sent: tuple[Event, ...]
    """By buffer."""


class Outbox:
    """One writer's buffers."""

    def __init__(
        self,
        device: Device,
        departure: Departure,
        graph: GraphSegment,
        spec: ChannelSpec,
        cap_bytes: int | None,
    ) -> None:
        """Take no memory yet.

        Args:
            device: The writer's GPU.
            departure: How tensors leave it.
            graph: The graph.
            spec: The channel.
            cap_bytes: Cap on the payload memory of the whole graph, or None.
        """
        self._device = device
        self._departure = departure
        self._graph = graph
        self._spec = spec
        self._cap_bytes = cap_bytes
        self._word = graph.layout.channels[spec.index].control // 8 + at.RING_BYTES
        self._calling = Translating(device.driver, f"writing {spec.label}")
        self._capacity = 0
        self._buffers: list[torch.Tensor] = []
        self._turn = 0

    def fill(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copy contiguous tensors of this GPU into the next buffer; returns their bytes there.

        The stream of the sends is behind that. It is the next one still until `sent`.

        Raises:
            MemoryCapError: There is no GPU memory for them, or the cap does not allow it.
            DeviceError: CUDA failed.
        """
        places, nbytes = offsets([one.nbytes for one in tensors])
        if nbytes > self._capacity:
            self._grow(nbytes)
        if not nbytes:
            return list(tensors)
        driver, current = self._device.driver, self._device.stream()
        buffer, sent = self._buffers[self._turn], self._departure.sent[self._turn]
        with self._calling:
            driver.wait(current, sent)
            start = buffer.data_ptr()
            for one, place in zip(tensors, places, strict=True):
                if one.nbytes:
                    driver.copy(start + place, one.data_ptr(), one.nbytes, current)
            self._follow(current)
            driver.record(sent, self._departure.stream)  # also if it is not sent
        found = zip(tensors, places, strict=True)
        return [buffer[place : place + one.nbytes] for one, place in found]

    def on(self) -> AbstractContextManager[object]:
        """Return a context in which the stream of the sends is the current one."""
        return self._device.on(self._departure.stream)

    def sent(self) -> None:
        """Go on to the other buffer: this one is free behind what is on the stream by now."""
        with self._calling:
            self._device.driver.record(self._departure.sent[self._turn], self._departure.stream)
        self._turn = (self._turn + 1) % BUFFERS

    def _follow(self, current: Stream) -> None:
        """Have the stream of the sends be behind another one."""
        driver, (stream, filled, _) = self._device.driver, self._departure
        driver.record(filled, current)
        driver.wait(stream, filled)

    def _grow(self, nbytes: int) -> None:
        """Have larger buffers, at least twice as large; the memory of the old ones goes first."""
        capacity = round_up(max(nbytes, 2 * self._capacity), ALIGN)
        self._buffers, self._capacity, self._graph.words[self._word] = [], 0, 0
        taken = BUFFERS * capacity
        check_cap(self._graph, self._spec, taken, "two buffers to send from", self._cap_bytes)
        buffers = [self._device.new(("uint8", (capacity,))) for _ in range(BUFFERS)]
        with self._calling:
            # Whatever stream fills a buffer first is behind what its memory was used for before.
            self._follow(self._device.stream())
            for event in self._departure.sent:
                self._device.driver.record(event, self._departure.stream)
        with self.on():
            for one in buffers:
                self._device.lend(one)
        self._buffers, self._capacity, self._graph.words[self._word] = buffers, capacity, taken
