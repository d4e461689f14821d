"""Channels whose tensors a user's communicator carries; all else of a value goes as always.

The message in shared memory says which tensors a value has, and where in it they belong. Writer
and reader then meet before either calls the communicator, because what happens in there we neither
see nor can end: each waits for the other here, where the end of the graph wakes it. So a send is
called when its receiver is about to receive, and the other way round:

* the writer publishes the message, and for each reader in turn waits for that reader's word, which
  says "I receive message n" (or "I do not": the reader's copy has failed earlier); then it sends
  the tensors, in the order in which they stand in the value;
* a reader takes the message, writes its word, rings the writer, and receives them.

A value without tensors, and an error, needs no meeting. That nobody waits for ever is proved with
writer and readers meeting all at once (`compiled_dag.simulate`), which is more than they do.

If the communicator raises, its copy here is not used again. A failed receive is the reader's error
in place of the value; a failed send is the receiver's error too, by the communicator's contract.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel import codec, layout
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.checked import CheckedWriter
from compiled_dag.channel.codec import Kind
from compiled_dag.channel.reader import Reader
from compiled_dag.errors import ChannelError
from compiled_dag.outcome import Error, Place
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.channel.codec import Encoded
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.communicators import CommunicatorEnd
    from compiled_dag.shm.waiter import Waiter

_DEATH_NOTICE_S: Final = 2.0
"""How long to wait for the news that a peer died, which is why most operations fail."""


@dataclass(frozen=True, slots=True)
class Peers:
    """This actor's copy of a communicator, and how the graph's participants are called in it."""

    end: CommunicatorEnd
    ranks: dict[int, int]
    """By participant."""
    waiter: Waiter


class RendezvousWriter(CheckedWriter):
    """Sends a value's tensors through a communicator."""

    def __init__(
        self,
        graph: GraphSegment,
        spec: ChannelSpec,
        place: Place,
        peers: Peers,
        *,
        slot_bytes: int,
        cap_bytes: int | None,
    ) -> None:
        super().__init__(graph, spec, place, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
        self._peers = peers
        self._tensors: list[Any] = []
        control = graph.layout.channels[spec.index]
        self._receivers = tuple(
            (peers.ranks[reader], control.reader(position) // 8 + layout.RECEIVES, Site())
            for position, reader in enumerate(spec.readers)
        )

    def write(self, value: Any) -> None:
        """Send `value` to every reader; returns when all have its tensors.

        Raises:
            TypeError: The value cannot be pickled; nothing was sent.
            MemoryCapError: There is no memory for it; nothing was sent.
            ChannelClosedError: The graph has ended.
        """
        self.stage(value)
        self.publish()
        sent, self._tensors = self._tensors, []
        if sent:
            self._exchange([tensors.to_send(one) for one in sent])

    def _encode_kept(self, value: Any) -> Encoded:
        failure = self._peers.end.failure
        if failure is not None and value.__class__ is not Error:
            value = Error.capture(ChannelError(failure), self._place, execution=self.published())
        encoded, self._tensors = self._encode_apart(value)
        return encoded

    def _encode_apart(self, value: Any) -> tuple[Encoded, list[Any]]:
        """Encode a value without those of its tensors that the communicator is to carry."""
        return self._promises.encode_apart(value)

    def _exchange(self, sent: Sequence[Any]) -> None:
        for rank, word, site in self._receivers:
            if self._receives(word, site) and self._peers.end.failure is None:
                self._send(sent, rank)

    def _receives(self, word: int, site: Site) -> bool:
        """Wait for a reader, and tell whether it receives what was published last."""
        words, number = self._words, self.published()

        def has_come() -> bool:
            return words[word] >> 1 >= number

        self._peers.waiter.until(has_come, self.graph.guard, None, site)
        return bool(words[word] & 1)

    def _send(self, sent: Sequence[Any], rank: int) -> None:
        end = self._peers.end
        try:
            for one in sent:
                if one.numel():
                    end.communicator.send(one, rank)
        except Exception as error:  # noqa: BLE001  user code may raise anything
            end.failure = failure_of(end, f"send to rank {rank}", error)
            await_news(self._peers.waiter, self.graph)


class RendezvousReader(Reader):
    """Receives a value's tensors through a communicator."""

    def __init__(
        self, graph: GraphSegment, spec: ChannelSpec, participant: int, label: str, peers: Peers
    ) -> None:
        super().__init__(graph, spec, participant, label)
        self._peers = peers
        self._device = spec.transport.device
        self._receives_word = self.ack_word + layout.RECEIVES
        self._writer_process = graph.processes[spec.writer]
        self._writer_rank = peers.ranks[spec.writer]
        self.rebuild = self._rebuild

    def _rebuild(self, kind: int, head: bytes, buffers: Sequence[Any]) -> Any:
        if kind != Kind.APART:
            return codec.decode(kind, head, buffers)
        end = self._peers.end
        comes = end.failure is None
        self._say(comes=comes)
        looks, stream = codec.split_apart(head)
        received = self._receive(looks) if comes else []
        if end.failure is not None:
            return self._failed(ChannelError(end.failure))
        landed = [tensors.land(one, self._device) for one in received]
        return codec.decode_apart(stream, buffers, landed)

    def _say(self, *, comes: bool) -> None:
        """Tell the writer whether this reader receives the message that it is at."""
        self.words[self._receives_word] = (self.sequence + 1) << 1 | comes
        self.graph.board.ring(self._writer_process)

    def _failed(self, cause: Exception) -> Error:
        """Return what goes in place of a value."""
        place = Place(method=f"reading {self.spec.label}", actor=self._label)
        return Error.capture(cause, place, execution=self.sequence)

    def _receive(self, looks: Sequence[tensors.Look]) -> list[Any]:
        """Return the tensors of a value; none after a failure, which is noted."""
        end, received = self._peers.end, list[Any]()
        try:
            received = [self._receive_one(look) for look in looks]
        except Exception as error:  # noqa: BLE001  user code may raise anything
            end.failure = failure_of(end, f"recv from rank {self._writer_rank}", error)
            await_news(self._peers.waiter, self.graph)
        return received

    def _receive_one(self, look: tensors.Look) -> Any:
        if 0 in look[1]:
            return tensors.empty(look)
        communicator, rank = self._peers.end.communicator, self._writer_rank
        found = communicator.recv(look[1], tensors.dtype_of(look), rank, None)
        _check_received(found, look)
        return found


def _check_received(received: Any, expected: tensors.Look) -> None:
    if not tensors.is_any_tensor(received) or tensors.look(received) != expected:
        found = tensors.look(received) if tensors.is_any_tensor(received) else type(received)
        msg = f"it returned {found} for {expected}"
        raise ValueError(msg)


def failure_of(end: CommunicatorEnd, what: str, error: Exception) -> str:
    """Return what is told of an end that failed, and is not used any more."""
    return (
        f"{type(end.communicator).__name__}, rank {end.rank}: {what} raised "
        f"{type(error).__name__}: {error}. The communicator cannot be used any more: compile the "
        "graph again"
    )


def await_news(waiter: Waiter, graph: GraphSegment) -> None:
    """Let the driver tell of a death first: then the graph breaks, with that as its cause.

    For who found that a peer does not do its part, which it may have found before the driver.
    """
    waiter.until(lambda: graph.state != layout.OPEN, _no_guard, time.monotonic() + _DEATH_NOTICE_S)


def _no_guard() -> None:
    """The wait is for the guard's own condition."""
