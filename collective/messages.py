"""What is sent of an operation's tensors: several of them in one message, laid out in rows.

A message is a matrix on either side. The rows of what a rank sends are for one rank each where the
operation divides tensors, and one for all otherwise; the rows of what it receives are from one rank
each where results consist of parts from all. A row holds its share of every tensor of the message,
one after the other. Rows are equally long: where the shares are not, they end in unused space.
Only an allgather of rows that differ leaves no space between them: each rank broadcasts its own.

All ranks compute the same from the shapes that all have shown. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from collective.kinds import ALLGATHER, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.kinds import Kind, Shape

Row: TypeAlias = tuple[int, ...]
"""Elements of each tensor's share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, as one rank sees it."""

    buckets: tuple[int, ...]
    """Which of the operation's tensors."""
    sent: tuple[Row, ...]
    received: tuple[Row, ...]
    width: int
    """Elements of a row."""
    shapes: tuple[Shape, ...]
    """Of the results, by tensor."""
    is_even: bool
    """Whether all rows are alike and full."""
    is_ragged: bool
    """Whether rows are as long as what they hold, and are broadcast one after the other."""

    @property
    def is_plain(self) -> bool:
        """Whether it is one tensor as it is: nothing needs to be put together."""
        return self.is_even and len(self.buckets) == 1

    @property
    def shape_received(self) -> Shape:
        """Return the shape of memory for what is received."""
        if self.is_plain:
            return self.shapes[0]
        if self.is_ragged:
            return (sum(map(sum, self.received)),)
        return (len(self.received) * self.width,)

    def place_of(self, origin: int) -> tuple[int, int]:
        """Return where a rank's row begins and ends in what is received."""
        length = sum(self.received[origin])
        before = sum(map(sum, self.received[:origin]))
        start = before if self.is_ragged else origin * self.width
        return start, start + length


def messages_of(
    kind: Kind,
    shapes: Sequence[Sequence[Shape]],
    *,
    rank: int,
    root: int,
    element_bytes: int,
    bucket_bytes: int | None,
) -> tuple[Message, ...]:
    """Return the messages of an operation.

    Args:
        kind: The operation.
        shapes: By rank and bucket. Ranks that bring nothing count as if they brought the root's.
        rank: Whose messages.
        root: The special rank, if there is one.
        element_bytes: Size of an element.
        bucket_bytes: What no message of several tensors is to exceed.
    """
    largest = [max(size(of[bucket]) for of in shapes) for bucket in range(len(shapes[0]))]
    groups = _groups([elements * element_bytes for elements in largest], bucket_bytes)
    return tuple(_message(kind, shapes, buckets, rank, root) for buckets in groups)


def _groups(sizes_bytes: Sequence[int], most_bytes: int | None) -> list[tuple[int, ...]]:
    """Divide tensors, in order, into messages of at most so many bytes, or of one tensor."""
    groups: list[tuple[int, ...]] = []
    total = 0
    for bucket, size_bytes in enumerate(sizes_bytes):
        if groups and (most_bytes is None or total + size_bytes <= most_bytes):
            groups[-1] += (bucket,)
            total += size_bytes
        else:
            groups.append((bucket,))
            total = size_bytes
    return groups


def _message(
    kind: Kind, shapes: Sequence[Sequence[Shape]], buckets: tuple[int, ...], rank: int, root: int
) -> Message:
    world_size = len(shapes)

    def row(sender: int, receiver: int) -> Row:
        parts = (kind.part(shapes[sender][bucket], world_size, receiver) for bucket in buckets)
        return tuple(map(size, parts))

    ranks = range(world_size)
    senders = [root] if kind.root == "src_rank" else ranks
    receivers = ranks if kind.divides else [0]
    origins = ranks if kind.from_all else [root if kind.root == "src_rank" else rank]
    sent = tuple(row(rank, receiver) for receiver in receivers)
    received = tuple(row(origin, rank) for origin in origins)
    width = max(sum(row(sender, receiver)) for sender in senders for receiver in receivers)
    is_ragged = kind == ALLGATHER and len(set(received)) > 1
    return Message(
        buckets=buckets,
        sent=sent,
        received=received,
        width=width,
        is_ragged=is_ragged,
        is_even=not is_ragged and all(_are_full(rows, width) for rows in (sent, received)),
        shapes=tuple(
            _result(
                kind, [kind.part(shapes[origin][bucket], world_size, rank) for origin in origins]
            )
            for bucket in buckets
        ),
    )


def _are_full(rows: Sequence[Row], width: int) -> bool:
    return len(set(rows)) == 1 and sum(rows[0]) == width


def _result(kind: Kind, parts: Sequence[Shape]) -> Shape:
    """Return the shape of all parts one after the other."""
    if not kind.from_all:
        return parts[0]
    return (sum(part[0] for part in parts), *parts[0][1:])
