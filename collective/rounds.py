"""How a rank carries the messages of an operation: memory, staging, and the backend's calls.

A round is one call of the backend. Most operations are one round. Several messages are one after
the other, and an uneven allgather is a broadcast from every rank. What a rank brings to a round is
staged before the ranks meet for it, which some backends rely on (`ProcessGroup`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from collective import flatten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch

    from collective.messages import Message
    from collective.ops import Operation
    from collective.process_group import ProcessGroup, Shortcut, Work


@dataclass(slots=True)
class Part:
    """A message with its memory."""

    message: Message
    receive: torch.Tensor | None = None
    """None on ranks that get nothing."""


@dataclass(slots=True)
class Round:
    """One call of the backend."""

    part: Part
    kind: str
    root: int
    place: slice | None = None
    """Which part of the memory it fills; None for all of it."""
    send: torch.Tensor | None = None


class Carrier:
    """One rank's way of doing an operation."""

    def __init__(
        self, group: ProcessGroup, operation: Operation, rank: int, world_size: int
    ) -> None:
        self._group = group
        self._world_size = world_size
        self._kind = kind = operation.kind
        self._op = None if operation.op is None else operation.op.value
        self._root = operation.root
        self._rank = rank
        self._overwrites = operation.inplace
        self._brings = not operation.only_gets(rank)
        self._in_place = kind.in_place and group.in_place
        self._uneven = operation.uneven
        self._gets = kind.gets(rank, operation.root)
        self._needs_memory = self._gets or self._in_place

    def rounds(self, messages: Sequence[Message]) -> list[Round]:
        """Return the rounds that messages take, none for those in which nobody sends anything."""
        rounds: list[Round] = []
        for message in messages:
            part = Part(message)
            if message.is_ragged:
                rounds += self._broadcasts(part)
            else:
                rounds.append(Round(part, self._kind.name, self._root))
        return rounds

    def shortcut(self, messages: Sequence[Message], value: torch.Tensor) -> Shortcut | None:
        """Return a quicker way for tensors like this one, if the backend has one.

        All ranks must bring the same, one tensor each, of which a message is made as it is.
        """
        is_odd = self._overwrites or self._uneven or self._kind.root == "src_rank"
        if is_odd or len(messages) > 1 or not messages[0].is_plain:
            return None
        shape = messages[0].shapes[0] if self._gets else None
        return self._group.shortcut(self._kind.name, value, self._op, self._root, shape)

    @staticmethod
    def _broadcasts(part: Part) -> Iterator[Round]:
        for rank in range(len(part.message.received)):
            place = slice(*part.message.place_of(rank))
            if place.stop > place.start:
                yield Round(part, "broadcast", rank, place)

    def prepare(
        self, one: Round, tensors: Sequence[torch.Tensor], dtype: torch.dtype, device: Any
    ) -> None:
        """Find memory for a round and stage what this rank brings to it.

        Args:
            one: The round.
            tensors: What this rank brings to the operation, by bucket; nothing if it brings none.
            dtype: Theirs, or the root's.
            device: Likewise.

        Raises:
            RuntimeError: There is no memory.
        """
        part, message = one.part, one.part.message
        mine = [tensors[bucket] for bucket in message.buckets] if tensors else []
        if part.receive is None and self._needs_memory:
            part.receive = self._memory(message, mine, dtype, device)
        if not mine or (message.is_ragged and one.root != self._rank) or not message.width:
            return
        if message.is_ragged and self._group.in_place:
            flatten.pack(message, mine, self._into(one))
        elif self._in_place:
            self._fill(part, mine)
        else:
            if not message.is_plain:
                rows = len(message.sent)
                length = sum(message.sent[0]) if message.is_ragged else rows * message.width
                buffer = self._group.empty((length,), dtype, device)
                flatten.pack(message, mine, buffer)
                mine = [buffer]
            one.send = self._group.stage(one.kind, mine[0], self._op, one.root)

    def _memory(
        self, message: Message, mine: Sequence[torch.Tensor], dtype: torch.dtype, device: Any
    ) -> torch.Tensor:
        """Return memory for what a message brings: the input's own, if that is wanted and will do.

        What is flattened, or lies somewhere else, is copied back (`results`).
        """
        if self._overwrites and message.is_plain and is_direct(mine[0]):
            own = self._group.empty((0,), dtype, device)
            if own.device == mine[0].device:
                return mine[0]
        return self._group.empty(message.shape_received, dtype, device)

    def _fill(self, part: Part, mine: Sequence[torch.Tensor]) -> None:
        """Copy what this rank brings to where the backend works."""
        receive = part.receive
        assert receive is not None, "a backend that works in place has memory on all ranks"
        if not part.message.is_plain:
            flatten.pack(part.message, mine, receive)
        elif receive is not mine[0]:
            receive.copy_(mine[0])

    @staticmethod
    def _into(one: Round) -> torch.Tensor:
        receive = one.part.receive
        assert receive is not None, "allgather gives something to all"
        return receive if one.place is None else receive[one.place]

    def run(self, one: Round) -> Work | None:
        """Start a round; returns what finishes it.

        Raises:
            RuntimeError: The backend failed.
            ChannelClosedError: The driver has ended the group.
        """
        if not one.part.message.width:
            return None
        receive = None if one.part.receive is None else self._into(one)
        return self._group.run(one.kind, one.send, receive, op=self._op, root=one.root)

    def results(
        self, parts: Iterable[Part], tensors: Sequence[torch.Tensor], device: Any
    ) -> list[torch.Tensor]:
        """Return the results by bucket, once all rounds are finished."""
        found: list[torch.Tensor] = []
        for part in parts:
            receive = part.receive
            assert receive is not None, "a rank that gets something has memory for it"
            if self._op == "AVG":
                receive /= self._world_size
            found += [receive] if part.message.is_plain else flatten.unpack(part.message, receive)
        if self._overwrites:
            pairs = zip(tensors, found, strict=True)
            return [mine if one is mine else mine.copy_(one) for mine, one in pairs]
        return [one if one.device == device else one.to(device) for one in found]


def is_direct(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor's memory holds its elements as they are, one after the other."""
    return tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())
