"""Where the parts of a message are: its table of buffers, its head, the buffers.

::

    u64 table of buffers (length << 1 | private), head, then each buffer at a multiple of 64

inline, in a payload slot, or in memory of its own (`runtime.parcel`). Pure arithmetic. The parts of
a graph's values have the same lengths time after time, so what was worked out is kept.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from compiled_dag.shm.segment import round_up

ALIGN: Final = 64
_CACHE_LIMIT: Final = 512


class Body(NamedTuple):
    """The parts of one message, as counted from its first byte."""

    table: bytes
    head: slice
    buffers: tuple[slice, ...]
    private: tuple[int, ...]
    """Indices of the private ones."""
    size: int


@lru_cache(_CACHE_LIMIT)
def body_of(head_bytes: int, lengths: tuple[int, ...], private: tuple[int, ...]) -> Body:
    """Return where the parts of a message are to be.

    Args:
        head_bytes: Length of its head.
        lengths: Bytes of its buffers.
        private: Indices of the private ones, ascending.
    """
    table = [length << 1 | (index in private) for index, length in enumerate(lengths)]
    at_head = 8 * len(table)
    end = at_head + head_bytes
    buffers = []
    for length in lengths:
        start = round_up(end, ALIGN)
        end = start + length
        buffers.append(slice(start, end))
    packed = struct.pack(f"<{len(table)}Q", *table)
    return Body(packed, slice(at_head, at_head + head_bytes), tuple(buffers), private, end)


@lru_cache(_CACHE_LIMIT)
def body_in(head_bytes: int, table: bytes) -> Body:
    """Return where the parts of a message are that begins with `table`."""
    entries = struct.unpack(f"<{len(table) // 8}Q", table)
    private = tuple([index for index, entry in enumerate(entries) if entry & 1])
    return body_of(head_bytes, tuple([entry >> 1 for entry in entries]), private)
