"""The bodies of large values, as they are laid into memory of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from compiled_dag.shm.segment import Segment, require_memory
from runtime.mapped import MAPPINGS
from runtime.warm import capacity_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.channel.body import Body
    from compiled_dag.channel.pickling import Buffer

_CHECK_BYTES: Final = 16 << 20
"""From here on it is worth asking the kernel whether there is room."""
_MOST_CHUNKS: Final = 1000  # the kernel takes 1024 at a time


def pieces_of(body: Body, head: bytes, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Return the pieces of a body in order, without gaps between them."""
    pieces, end = [body.table, head], body.head.stop
    for place, buffer in zip(body.buffers, buffers, strict=True):
        pieces += bytes(place.start - end), buffer
        end = place.stop
    return pieces


def store(body: Body, head: bytes, buffers: Sequence[Buffer], used: int) -> int:
    """Have a body in a segment; returns its descriptor.

    Args:
        body: Where its parts are to be.
        head: Its head.
        buffers: Its buffers.
        used: Descriptor of memory that was used before, which is this function's; -1: there is
            none.
    """
    segment = Segment(used)
    try:
        if segment.fd >= 0:
            view = MAPPINGS.of(segment.fd, body.size).view()
            view[: len(body.table)] = body.table
            view[body.head] = head
            for place, buffer in zip(body.buffers, buffers, strict=True):
                view[place] = buffer
            return segment.fd
        if body.size >= _CHECK_BYTES:
            require_memory(body.size, "a value")
        segment = Segment.create("compiled-dag-value", capacity_for(body.size))
        _write_all(segment.fd, pieces_of(body, head, buffers))
    except BaseException:
        segment.close()
        raise
    return segment.fd


def _write_all(fd: int, pieces: list[Buffer]) -> None:
    """Write pieces into new memory. Writing is faster than mapping: no page faults one by one.

    Huge pages (`Mapping.collapse`) made 64 MiB twice as fast. But where a machine's free memory is
    its host's, new ones cost 5 ms each, and every value may take new ones: 8 MiB took 22 ms instead
    of 4, in half of the runs.
    """
    left = [memoryview(piece) for piece in pieces if len(piece)]
    at = 0
    while left:
        written = os.pwritev(fd, left[:_MOST_CHUNKS], at)
        left = _skip(left, written)
        at += written


def _skip(views: list[memoryview], nbytes: int) -> list[memoryview]:
    for index, view in enumerate(views):
        if nbytes < view.nbytes:
            return [view[nbytes:], *views[index + 1 :]]
        nbytes -= view.nbytes
    return []
