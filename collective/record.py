"""What a rank shows of its tensors before an operation, and what is said when ranks disagree.

A rank's tensors have one dtype and are on one device. A single shape stands in the record itself;
of several there is a digest, and their text beside the record (`Preflight.arrive`).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from collective.header import BESIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from collective.kinds import Shape

MAX_DIMS: Final = 16
_HEAD: Final = struct.Struct("<64s16s8sI")
"""Operation, dtype, device kind, number of tensors."""
_SHAPE: Final = struct.Struct(f"<I{MAX_DIMS}q")
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Brought:
    """What a rank brings."""

    text: str
    """The operation."""
    dtype: str
    """Without ``torch.``."""
    device: str
    """Kind."""
    shapes: tuple[Shape, ...]
    """By bucket; those that there was no room to show are left out."""

    @classmethod
    def of(cls, text: str, tensors: Sequence[torch.Tensor]) -> Brought:
        """Return what stands for tensors of at most `MAX_DIMS` dimensions."""
        first = tensors[0]
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        return cls(text, str(first.dtype)[6:], first.device.type, shapes)

    def packed(self) -> tuple[bytes, bytes]:
        """Return the record, and what is to be shown beside it."""
        count = len(self.shapes)
        head = _HEAD.pack(self.text.encode(), self.dtype.encode(), self.device.encode(), count)
        if count == 1:
            (shape,) = self.shapes
            padding = (0,) * (MAX_DIMS - len(shape))
            return head + _SHAPE.pack(len(shape), *shape, *padding), b""
        text = ";".join(",".join(map(str, shape)) for shape in self.shapes).encode()
        return head + hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest(), text

    @classmethod
    def unpacked(cls, record: bytes, beside: Callable[[], bytes]) -> Brought:
        """Return what a rank has shown: a record after one byte, and what is beside it."""
        *texts, count = _HEAD.unpack_from(record, 1)
        text, dtype, device = (part.rstrip(b"\0").decode() for part in texts)
        shapes: tuple[Shape, ...] = ()
        if count == 1:
            num_dims, *dims = _SHAPE.unpack_from(record, 1 + _HEAD.size)
            shapes = (tuple(dims[:num_dims]),)
        elif count:
            shown = beside().decode().split(";")
            if len(shown) < count:
                shown.pop()  # the last one may be cut short
            shapes = tuple(tuple(map(int, filter(None, one.split(",")))) for one in shown)
        return cls(text, dtype, device, shapes)

    def in_torch(self) -> tuple[torch.dtype, torch.device]:
        """Return dtype and device."""
        import torch  # noqa: PLC0415  a group of its backend is there

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype, torch.device(self.device)

    def without_rows(self) -> Brought:
        """Return it without the first dimensions, which may differ where that is allowed."""
        return replace(self, shapes=tuple(shape[1:] for shape in self.shapes))


def describe(text: str, tensor: torch.Tensor) -> bytes:
    """Return the record of a tensor of at most `MAX_DIMS` dimensions, for the operation `text`."""
    return Brought.of(text, [tensor]).packed()[0]


def operation_of(record: bytes) -> str:
    """Return the operation that a rank has shown."""
    return Brought.unpacked(record, bytes).text


def why_not_shown(beside: bytes) -> str | None:
    """Return why ranks that need to know all shapes cannot, or None."""
    if len(beside) <= BESIDE:
        return None
    return (
        f"the shapes of {beside.count(b';') + 1} tensors take {len(beside)} bytes, and ranks can "
        f"show each other {BESIDE}: use fewer tensors in one operation"
    )


def mismatch_text(
    text: str,
    records: Sequence[bytes],
    names: Sequence[Sequence[str]],
    columns: Sequence[str],
    beside: Sequence[bytes] = (),
    *,
    ranks: Sequence[int] | None = None,
    uneven: bool = False,
) -> str:
    """Say which ranks disagree, as a table with the odd ones marked.

    Args:
        text: What messages call the operation.
        records: As shown, by rank, each after one byte.
        names: What else is to be said of each rank.
        columns: Heads of these.
        beside: What is shown beside the records, where that is more than one tensor's shape.
        ranks: Whose records they are, where not everybody's.
        uneven: Whether first dimensions may differ.
    """
    brought = [
        Brought.unpacked(record, partial(bytes, text))
        for record, text in zip(records, beside or [b""] * len(records), strict=True)
    ]
    compared: list[object] = list(records)
    if uneven:
        compared = [one.without_rows() for one in brought]
    common = max(compared, key=compared.count)
    shapes = _shapes(brought)
    rows = [("rank", *columns, "operation", "dtype", "shape", "device")]
    for place, (known, one) in enumerate(zip(names, brought, strict=True)):
        rank = place if ranks is None else ranks[place]
        device = one.device + ("  <-- differs" if compared[place] != common else "")
        rows.append((str(rank), *known, one.text, one.dtype, shapes[place], device))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = [[c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in rows]
    table = "\n".join(f"  {'  '.join(row)}".rstrip() for row in cells)
    return f"the ranks of {text} bring different tensors:\n{table}"


def _shapes(brought: Sequence[Brought]) -> list[str]:
    """Return every rank's shape, or those of its shapes in which ranks differ."""
    most = max(len(one.shapes) for one in brought)
    if most == 1:
        return [str(one.shapes[0]) if one.shapes else "" for one in brought]
    differ = [
        bucket
        for bucket in range(most)
        if len({one.shapes[bucket : bucket + 1] for one in brought}) > 1
    ]
    return [
        ", ".join(
            f"bucket {bucket}: {shape}"
            for bucket in differ
            for shape in one.shapes[bucket : bucket + 1]
        )
        for one in brought
    ]
