"""How a process becomes a rank: it meets the others, and makes its end of the backend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collective.header import GroupHeader, Preflight
    from collective.process_group import ProcessGroup
    from compiled_dag.shm.waiter import Waiter


def make_backend(
    backend: str,
    header: GroupHeader,
    preflight: Preflight,
    rank: int,
    waiter: Waiter,
    timeout_s: float,
    *,
    may_fall_back: bool,
) -> ProcessGroup:
    """Return one rank's end of a backend of ours; returns when it is usable.

    Args:
        backend: Its name.
        header: The group's.
        preflight: This rank's.
        rank: This one.
        waiter: How it waits.
        timeout_s: For the ranks to find each other.
        may_fall_back: Whether gloo will do where "cuda_ipc" is refused.

    Raises:
        RuntimeError: The backend failed.
        CollectiveTimeoutError: The ranks did not find each other in time.
        ChannelClosedError: The driver has given the group up.
    """
    if backend == "shm":
        from collective.shm_group import SharedMemoryGroup  # noqa: PLC0415

        return SharedMemoryGroup.join(header, preflight, rank, waiter)
    if backend == "cuda_ipc":
        from collective.cuda_joining import join  # noqa: PLC0415

        joined = join(header, preflight, rank, waiter, timeout_s)
        if not isinstance(joined, str):
            return joined
        if not may_fall_back:
            msg = f"the ranks cannot share the memory of their GPU: {joined}"
            raise RuntimeError(msg)
        backend = "gloo"
    from collective.store import SharedMemoryStore  # noqa: PLC0415
    from collective.torch_group import make_group  # noqa: PLC0415

    store = SharedMemoryStore(header, waiter, timeout_s)
    return make_group(backend, store, rank, header.world_size, waiter)


def meet_ranks(header: GroupHeader, rank: int, timeout_s: float, waiter: Waiter) -> None:
    """Wait for all ranks where the end of the group is noticed: inside a backend it is not.

    Raises:
        ChannelClosedError: The driver has given the group up.
        TimeoutError: Not all ranks came in time.
    """
    header.arrive(rank)
    deadline = time.monotonic() + timeout_s
    if not waiter.until(lambda: not header.absent(), header.guard, deadline):
        msg = f"ranks {header.absent()} did not arrive within {timeout_s:.1f} s"
        raise TimeoutError(msg)
    header.guard()
