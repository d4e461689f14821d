"""What a rank shows of its tensor before an operation, and what is said when ranks disagree."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

MAX_DIMS: Final = 16
_RECORD: Final = struct.Struct(f"<40s16s8sI{MAX_DIMS}q")
"""Operation, dtype, device kind, dimensions, shape."""


def describe(text: str, tensor: torch.Tensor) -> bytes:
    """Return the record of a tensor of at most `MAX_DIMS` dimensions, for the operation `text`."""
    shape = tuple(tensor.shape)
    return _RECORD.pack(
        text.encode(),
        str(tensor.dtype)[6:].encode(),
        tensor.device.type.encode(),
        len(shape),
        *shape,
        *(0,) * (MAX_DIMS - len(shape)),
    )


def mismatch_text(
    text: str, records: Sequence[bytes], names: Sequence[Sequence[str]], columns: Sequence[str]
) -> str:
    """Say which ranks disagree, as a table with the odd ones marked.

    Args:
        text: What messages call the operation.
        records: As shown, by rank, each after one byte.
        names: What else is to be said of each rank.
        columns: Heads of these.
    """
    common = max(records, key=records.count)
    rows = [("rank", *columns, "operation", "dtype", "shape", "device")]
    for rank, (known, record) in enumerate(zip(names, records, strict=True)):
        odd = "  <-- differs" if record != common else ""
        rows.append((str(rank), *known, *_unpack(record, odd)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = [[c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in rows]
    table = "\n".join(f"  {'  '.join(row)}".rstrip() for row in cells)
    return f"the ranks of {text} bring different tensors:\n{table}"


def operation_of(record: bytes) -> str:
    """Return the operation that a rank has shown."""
    return _unpack(record, "")[0]


def tensor_of(record: bytes) -> tuple[torch.dtype, torch.device, tuple[int, ...]]:
    """Return dtype, device and shape that a rank has shown."""
    import torch  # noqa: PLC0415  a group of its backend is there

    _, dtype, device, num_dims, *shape = _RECORD.unpack_from(record, 1)
    found: torch.dtype = getattr(torch, dtype.rstrip(b"\0").decode())
    return found, torch.device(device.rstrip(b"\0").decode()), tuple(shape[:num_dims])


def _unpack(record: bytes, odd: str) -> tuple[str, str, str, str]:
    text, dtype, device, num_dims, *shape = _RECORD.unpack_from(record, 1)
    names = [part.rstrip(b"\0").decode() for part in (text, dtype, device)]
    return names[0], names[1], str(tuple(shape[:num_dims])), names[2] + odd
