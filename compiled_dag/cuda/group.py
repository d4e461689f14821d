"""The ends of channels whose tensors a process group carries from GPU to GPU.

For GPUs that share no memory. As with a user's communicator (`channel.rendezvous`) writer and
readers meet in host memory first, so that nobody's GPU begins to send to one that will not receive;
what the GPUs do then is only enqueued.

With ``_overlap_gpu_communication`` NCCL's tensors are received on the stream that rings use: then
they wait for no method that the GPU is at, and the current stream waits for them where a value is
first used (`flow`). And they are sent on another stream, from buffers (`outbox`), so that methods
do not wait until they are received. NCCL has one stream for each communicator, which waits for the
stream that is current when it is called: what goes to and fro between the same ends is in order.

The tensors of one value go to all its readers in one piece, and so do those of all values of one
call that have the same readers: they are one message (`passes.channels`), and if one of them cannot
be sent, none is. Other values do not go together. To put two into one group of NCCL's, the writer
would have to meet the readers of both before it sends the first; a reader of the first may have to
make something of it, where its host waits for its GPU, and send that, before another one comes to
the second: all would wait.

Tensors in host memory travel in the message, as always. A reader that has no memory for what comes
says that it does not receive it, and has an error for that execution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compiled_dag.channel import codec
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.codec import Kind
from compiled_dag.channel.rendezvous import (
    Peers,
    RendezvousReader,
    RendezvousWriter,
    await_news,
    failure_of,
)
from compiled_dag.cuda.driver import Translating
from compiled_dag.errors import ChannelClosedError, ChannelError, MemoryCapError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.channel.codec import Encoded
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Event, Stream
    from compiled_dag.cuda.outbox import Outbox
    from compiled_dag.operation import EdgeEnd
    from compiled_dag.outcome import Error, Place


@dataclass(frozen=True, slots=True)
class Aside:
    """A stream to receive on, and what says that the last value has come."""

    stream: Stream
    arrived: Event


@dataclass(frozen=True, slots=True)
class Line:
    """One actor's way to the other ends of a channel."""

    peers: Peers
    carrier: EdgeEnd
    """The group, also as ``peers.end`` has it."""
    device: Device
    aside: Aside | None = None
    """None: tensors are received on the current stream, or into host memory."""
    outbox: Outbox | None = None
    """None: tensors are sent from where they are, on the current stream, or from host memory."""


class GroupWriter(RendezvousWriter):
    """Sends what is on the GPU through a process group."""

    def __init__(
        self,
        graph: GraphSegment,
        spec: ChannelSpec,
        place: Place,
        line: Line,
        *,
        slot_bytes: int,
        cap_bytes: int | None,
    ) -> None:
        super().__init__(graph, spec, place, line.peers, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
        self._line = line

    def _encode_apart(self, value: Any) -> tuple[Encoded, list[Any]]:
        encoded, found = self._promises.encode_apart(value, self._belongs)
        if found and self._line.outbox is not None:
            found = self._line.outbox.fill([tensors.to_send(one) for one in found])
        return encoded, found

    def _belongs(self, tensor: torch.Tensor) -> bool:
        return tensors.is_plain(tensor) and self._line.device.holds(tensor)

    def _exchange(self, sent: Sequence[Any]) -> None:
        outbox = self._line.outbox
        if outbox is None:
            self._send_to_all(sent)
            return
        with outbox.on():
            self._send_to_all(sent)
        outbox.sent()

    def _send_to_all(self, sent: Sequence[Any]) -> None:
        ranks = [rank for rank, word, site in self._receivers if self._receives(word, site)]
        end = self._peers.end
        staged = [self._staged(one) for one in sent if one.numel()]
        if not ranks or not staged or end.failure is not None:
            return
        try:
            self._line.carrier.exchange([(one, rank) for rank in ranks for one in staged], ())
        except ChannelClosedError:
            raise
        except RuntimeError as error:
            end.failure = failure_of(end, f"send to ranks {ranks}", error)
            await_news(self._peers.waiter, self.graph)

    def _staged(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous tensor where the group can send it from."""
        if not self._line.carrier.in_host_memory:
            return tensor
        import torch  # noqa: PLC0415  there is a tensor

        data = bytearray(self._line.device.to_host(tensor))
        host: torch.Tensor = torch.frombuffer(data, dtype=torch.uint8)
        return host


class GroupReader(RendezvousReader):
    """Receives what was on a GPU through a process group."""

    def __init__(
        self, graph: GraphSegment, spec: ChannelSpec, participant: int, label: str, line: Line
    ) -> None:
        super().__init__(graph, spec, participant, label, line.peers)
        self._line = line
        self._calling = Translating(line.device.driver, f"reading {spec.label}")

    def _rebuild(self, kind: int, head: bytes, buffers: Sequence[Any]) -> Any:
        if kind != Kind.APART:
            if self._device == "default":
                return codec.decode(kind, head, buffers)
            return codec.decode_onto(self._device, kind, head, buffers)
        end = self._peers.end
        looks, stream = codec.split_apart(head)
        try:
            targets = [self._target(look) for look in looks]
        except MemoryCapError as error:
            self._say(comes=False)
            return self._failed(error)
        comes = end.failure is None
        self._say(comes=comes)
        if comes:
            self._receive_into(targets)
        if end.failure is not None:
            return self._failed(ChannelError(end.failure))
        try:
            landed = [self._landed(one, look) for one, look in zip(targets, looks, strict=True)]
        except MemoryCapError as error:
            return self._failed(error)
        return codec.decode_apart(stream, buffers, landed)

    def _receive_into(self, targets: Sequence[torch.Tensor]) -> None:
        end, rank = self._peers.end, self._writer_rank
        wanted = [(one, rank) for one in targets if one.numel()]
        if not wanted:
            return
        aside, device = self._line.aside, self._line.device
        try:
            if aside is None:
                self._line.carrier.exchange((), wanted)
                return
            with device.on(aside.stream):
                self._line.carrier.exchange((), wanted)
            with self._calling:
                device.driver.record(aside.arrived, aside.stream)
            for one, _ in wanted:
                device.lend(one)
        except ChannelClosedError:
            raise
        except RuntimeError as error:
            end.failure = failure_of(end, f"recv from rank {rank}", error)
            await_news(self._peers.waiter, self.graph)

    def _target(self, look: tensors.Look) -> torch.Tensor:
        """Return memory for what comes, where the group can put it."""
        line = self._line
        if line.carrier.in_host_memory:
            return tensors.empty(look)
        return line.device.new(look, None if line.aside is None else line.aside.stream)

    def arrive(self) -> None:
        """Have the current stream wait for the tensors of the last message."""
        if self._line.aside is not None:
            with self._calling:
                driver, stream = self._line.device.driver, self._line.device.stream()
                driver.wait(stream, self._line.aside.arrived)

    def _landed(self, tensor: torch.Tensor, look: tensors.Look) -> torch.Tensor:
        """Return what has come, on the GPU."""
        if not self._line.carrier.in_host_memory:
            return tensor
        if not tensor.numel():
            return self._line.device.new(look)
        data = tensors.to_bytes(tensor)[1].tobytes()
        flat = self._line.device.from_host(data)
        return flat.view(tensors.dtype_of(look)).reshape(look[1])

    def _failure(self, cause: Exception) -> Error:
        """Return what goes in place of a value; raises what is not of this value alone."""
        if isinstance(cause, ChannelClosedError):
            raise cause
        return super()._failure(cause)
