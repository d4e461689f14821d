"""Tensors into a message and out of it.

Imported by every actor's zygote, which has not imported torch: functions do, there are tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.messages import Message


def pack(message: Message, tensors: Sequence[torch.Tensor], buffer: torch.Tensor) -> None:
    """Write a rank's tensors, those of the message, into what it sends: one row after the other."""
    rows = len(message.sent)
    if message.is_even:
        shares = [tensor.reshape(rows, -1) for tensor in tensors if tensor.numel()]
        _join(shares, buffer.view(rows, message.width), along=1)
        return
    rest = [tensor.reshape(-1) for tensor in tensors]
    width = buffer.numel() // rows
    for number, row in enumerate(message.sent):
        shares = [one[:elements] for one, elements in zip(rest, row, strict=True)]
        rest = [one[elements:] for one, elements in zip(rest, row, strict=True)]
        _join(shares, buffer[number * width :][: sum(row)], along=0)


def _join(parts: list[torch.Tensor], to: torch.Tensor, *, along: int) -> None:
    import torch  # noqa: PLC0415  see above

    if parts and parts[0].device == to.device:
        torch.cat(parts, along, out=to)
    elif parts:
        to.copy_(torch.cat(parts, along))


def unpack(message: Message, buffer: torch.Tensor) -> list[torch.Tensor]:
    """Return the results in what was received: views of it where they stand in one piece."""
    if message.is_even:
        rows = buffer.view(len(message.received), message.width)
        shares = rows.split(message.received[0], 1)
        return [share.reshape(of) for share, of in zip(shares, message.shapes, strict=True)]
    if message.is_ragged and len(message.buckets) == 1:
        return [buffer.view(message.shapes[0])]
    import torch  # noqa: PLC0415  see above

    parts = [
        buffer[slice(*message.place_of(origin))].split(row)
        for origin, row in enumerate(message.received)
    ]
    return [
        (of[0] if len(of) == 1 else torch.cat(of)).view(shape)
        for of, shape in zip(zip(*parts, strict=True), message.shapes, strict=True)
    ]
