"""How a process becomes a rank: it meets the others, and makes its end of the backend."""

from __future__ import annotations

import os
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collective.header import GroupHeader
from collective.preflight import Preflight
from compiled_dag.communicators import CommunicatorPart, end_in
from compiled_dag.shm.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.process_group import ProcessGroup
    from compiled_dag.host import ActorContext
    from compiled_dag.shm.waiter import Waiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """What a rank needs to join."""

    group_id: int
    rank: int
    processes: tuple[int, ...]
    """Board line of each rank."""
    backend: str
    communicator: CommunicatorPart | None
    """The user's, which does the work."""
    timeout_s: float
    pairs: bool
    """Whether ranks are to send to each other: then each does so once, to have it connected."""
    may_fall_back: bool
    """Whether gloo will do where "cuda_ipc" is refused."""


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
    from collective.store import MeshStore, SharedMemoryStore  # noqa: PLC0415
    from collective.torch_group import make_group  # noqa: PLC0415

    kind = MeshStore if backend == "gloo" else SharedMemoryStore
    store = kind(header, waiter, timeout_s)
    return make_group(backend, store, rank, waiter, preflight.site)


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


# --- what the driver has an actor run, for groups of graphs ---------------------------------------


def join_group(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:
    """Join a group (a `SystemCall`)."""
    try:
        # torch is imported by the first group only, and never by the driver.
        from collective.rank import RankGroup  # noqa: PLC0415

        join: Join = pickle.loads(payload)
        world_size = len(join.processes)
        header = GroupHeader(Segment(fds[0]), world_size, context.board, join.processes)
        meet_ranks(header, join.rank, join.timeout_s, context.waiter)
        preflight = Preflight(header, join.rank, context.waiter)
        process_group = _make_group(context, header, preflight, join)
        if join.pairs:
            from collective.edges import connect  # noqa: PLC0415  few groups need it

            connect(process_group, join.rank, world_size)
    except BaseException:
        os.close(fds[0])
        raise
    context.resources[f"group {join.group_id}"] = RankGroup(
        header, preflight, process_group, join.rank, context.waiter
    )
    return b""


def _make_group(
    context: ActorContext, header: GroupHeader, preflight: Preflight, join: Join
) -> ProcessGroup:
    if join.communicator is not None:
        from collective.communicator_group import CommunicatorGroup  # noqa: PLC0415

        part = join.communicator
        return CommunicatorGroup(end_in(context, part.graph_id, part.number), part.ranks)
    return make_backend(
        join.backend,
        header,
        preflight,
        join.rank,
        context.waiter,
        join.timeout_s,
        may_fall_back=join.may_fall_back,
    )


def leave_group(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Leave a group (a `SystemCall`); fine if this process is not in it."""
    group = context.resources.pop(f"group {int(payload)}", None)
    if group is not None:
        group.close()
    return b""
