"""``ray.util.collective``: ours, where the arguments differ.

Ray names a time in milliseconds, defaults to NCCL, and lets a group that is made from outside form
with the first operation; here it forms at once, which raises at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import collective
from collective import (
    allgather,
    allreduce,
    barrier,
    broadcast,
    get_collective_group_size,
    get_group_handle,
    get_rank,
    gloo_available,
    is_backend_available,
    is_group_initialized,
    nccl_available,
    recv,
    reduce,
    reducescatter,
    register_collective_backend,
    send,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_MS = 1000.0

__all__ = [
    "allgather",
    "allreduce",
    "barrier",
    "broadcast",
    "create_collective_group",
    "destroy_collective_group",
    "get_collective_group_size",
    "get_group_handle",
    "get_rank",
    "gloo_available",
    "init_collective_group",
    "is_backend_available",
    "is_group_initialized",
    "nccl_available",
    "recv",
    "reduce",
    "reducescatter",
    "register_collective_backend",
    "send",
]


def create_collective_group(
    actors: Sequence[Any],
    world_size: int,
    ranks: Sequence[int],
    backend: str = "nccl",
    group_name: str = "default",
    gloo_timeout: int = 30000,
) -> None:
    """Make a group of actors; see `collective.create_collective_group`.

    Args:
        actors: Handles.
        world_size: How many there are.
        ranks: The rank of each.
        backend: What carries the operations.
        group_name: What the actors call it.
        gloo_timeout: Of forming and of every operation, in milliseconds, on any backend.

    Raises:
        RuntimeError: The numbers do not fit, or the name is taken.
    """
    if not len(actors) == len(ranks) == world_size:
        msg = (
            f"create_collective_group: {len(actors)} actors, {len(ranks)} ranks and "
            f"world_size={world_size}: the three must be equal"
        )
        raise RuntimeError(msg)
    collective.create_collective_group(
        actors, backend, group_name, ranks=ranks, timeout_s=gloo_timeout / _MS
    )


def init_collective_group(
    world_size: int,
    rank: int,
    backend: str = "nccl",
    group_name: str = "default",
    gloo_timeout: int = 30000,
) -> None:
    """Join a group; see `collective.init_collective_group`.

    Args:
        world_size: Number of ranks.
        rank: This one's.
        backend: What carries the operations.
        group_name: The name by which the ranks find each other.
        gloo_timeout: Of forming and of every operation, in milliseconds, on any backend.
    """
    timeout_s = gloo_timeout / _MS
    collective.init_collective_group(world_size, rank, backend, group_name, timeout_s)


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave a group; nothing if this actor is in none of that name."""
    if collective.is_group_initialized(group_name):
        collective.destroy_collective_group(group_name)
