"""One program's work on its actor's GPU: how far the host runs ahead, and on which streams.

Nothing makes a host wait for its GPU, so it could enqueue executions without end. It is at most
`AHEAD` of them ahead: before execution i it waits for the event recorded after execution i - AHEAD,
which is done by then unless the GPU is what is slow. The wait looks again and again instead of
blocking in CUDA, because there the end of the graph could not end it.

User code, and copies into rings, are on the stream that is current when a method is called. A copy
into the own ring is short, and on a stream of its own it would race with a method that changes in
place what an earlier call has returned. What takes long, where it does, is a reader's copy: over
the bus, or from another GPU; and what a process group sends, which is over when it is received.
With ``_overlap_gpu_communication`` each of these is on a stream of its own: the current stream
waits for what is received where a value is first used, and for what is sent where the buffer that
it is sent from is needed again (`outbox`).

Nobody's GPU waits for ever: what a stream waits for is always of steps that come earlier in the
program, and a step that communicates has all others who take part at the same place of the one
order. With fewer streams (torch has 32, and gives them out again) more would be in that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.ring import await_gpu

if TYPE_CHECKING:
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Event
    from compiled_dag.shm.waiter import Waiter

AHEAD: Final = 4


class Flow:
    """The pace of one program, and the streams it receives and sends on."""

    def __init__(
        self, device: Device, graph: GraphSegment, waiter: Waiter, *, overlaps: bool
    ) -> None:
        """Begin.

        Args:
            device: The actor's GPU.
            graph: The graph, whose end ends waits.
            waiter: The main thread's.
            overlaps: Whether tensors are received and sent on streams of their own.
        """
        self._device = device
        self._graph = graph
        self._waiter = waiter
        self._calling = Translating(device.driver, "the GPU's work of an earlier execution")
        self.receive = device.make_stream() if overlaps else None
        """None: the current one."""
        self.send = device.make_stream() if overlaps else None
        """What process groups send on; None: the current one."""
        with self._calling:
            self._events: list[Event] = [
                device.driver.make_event(is_shared=False) for _ in range(AHEAD + 1)
            ]
            """The last of these is for `settle`; then come those of others."""

    def make_event(self) -> Event:
        """Return a new event, which lives as long as this."""
        with self._calling:
            self._events.append(self._device.driver.make_event(is_shared=False))
        return self._events[-1]

    def begin(self, execution: int) -> None:
        """Wait until the GPU has done execution number ``execution - AHEAD``.

        Raises:
            ChannelClosedError: The graph has ended.
            DeviceError: The GPU failed in it.
        """
        with self._calling:
            event = self._events[execution % AHEAD]
            await_gpu(self._device.driver, event, self._waiter, self._graph.guard)

    def end(self, execution: int) -> None:
        """Note that everything of an execution is enqueued."""
        with self._calling:
            self._device.driver.record(self._events[execution % AHEAD], self._device.stream())

    def settle(self) -> None:
        """Wait until the GPU has done all that is on this program's streams; raises as `begin`."""
        driver, event = self._device.driver, self._events[AHEAD]
        with self._calling:
            for stream in (self.receive, self.send, self._device.stream()):
                if stream is not None:
                    driver.record(event, stream)
                    await_gpu(driver, event, self._waiter, self._graph.guard)

    def close(self) -> None:
        """Destroy the events. Idempotent."""
        events, self._events = self._events, []
        for event in events:
            self._device.driver.destroy_event(event)
