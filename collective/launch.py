"""Starting an operation on a torch.distributed process group: the same calls for every backend.

What only moves is moved as bytes, so that every dtype will do.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed

if TYPE_CHECKING:
    from collections.abc import Sequence

dist: Any = torch.distributed  # its C++ classes are exported but not declared

OP_TIMEOUT: Final = timedelta(hours=1)
"""Of the backend itself; people are told by the graph's own time-outs long before."""

_REDUCE: Final = {
    "SUM": dist.ReduceOp.SUM,
    "AVG": dist.ReduceOp.SUM,
    "PRODUCT": dist.ReduceOp.PRODUCT,
    "MAX": dist.ReduceOp.MAX,
    "MIN": dist.ReduceOp.MIN,
    "BAND": dist.ReduceOp.BAND,
    "BOR": dist.ReduceOp.BOR,
    "BXOR": dist.ReduceOp.BXOR,
}


def launch(
    group: Any,
    kind: str,
    send: torch.Tensor | None,
    receive: torch.Tensor | None,
    *,
    op: str | None,
    root: int,
) -> Any:
    """Start operation `kind`; returns the group's own work handle.

    Args:
        group: The process group.
        kind: Name of the operation.
        send: What this rank brings, contiguous; None on ranks that bring nothing.
        receive: What it gets; None on ranks that get nothing. allreduce, reduce and broadcast
            work on this alone.
        op: How to reduce, if the operation does.
        root: The special rank, if it has one.
    """
    match kind:
        case "allreduce":
            return group.allreduce([receive], _options("Allreduce", op))
        case "reduce":
            return group.reduce([receive], _options("Reduce", op, root))
        case "reducescatter":
            return group._reduce_scatter_base(receive, send, _options("ReduceScatter", op))
        case "broadcast":
            return group.broadcast([as_bytes(receive)], _options("Broadcast", None, root))
        case "allgather":
            return group._allgather_base(as_bytes(receive), as_bytes(send))
        case "all_to_all":
            return all_to_all(group, send, receive)
        case "gather":
            parts = [] if receive is None else [_parts(receive, group.size())]
            return group.gather(parts, [as_bytes(send)], _options("Gather", None, root))
        case "scatter":
            parts = [] if send is None else [_parts(send, group.size())]
            return group.scatter([as_bytes(receive)], parts, _options("Scatter", None, root))
    msg = f"no operation {kind!r}"
    raise AssertionError(msg)


def all_to_all(
    group: Any,
    send: torch.Tensor | None,
    receive: torch.Tensor | None,
    received: Sequence[int] = (),
    sent: Sequence[int] = (),
) -> Any:
    """Start an all-to-all of bytes, of which `sent` go to each rank and `received` come from it.

    Where these are empty it is equal parts.
    """
    target, source = as_bytes(receive), as_bytes(send)
    options = _options("AllToAll", None)
    return group.alltoall_base(target, source, list(received), list(sent), options)


def as_bytes(tensor: torch.Tensor | None) -> torch.Tensor:
    """Return a contiguous tensor as its bytes."""
    assert tensor is not None
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _parts(tensor: torch.Tensor, world_size: int) -> list[torch.Tensor]:
    return list(as_bytes(tensor).chunk(world_size))


@cache
def _options(kind: str, op: str | None, root: int = 0) -> Any:
    """Return the options of an operation: the same object for the same ones."""
    options = getattr(dist, f"{kind}Options")()
    options.timeout = OP_TIMEOUT
    if op is not None:
        options.reduceOp = _REDUCE[op]
    if hasattr(options, "rootRank"):
        options.rootRank = root
    return options
