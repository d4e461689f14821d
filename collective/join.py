"""How a process becomes a rank of an eager group; the groups that it is in, by name."""

from __future__ import annotations

import os
import pickle
import threading
from typing import TYPE_CHECKING, Any, cast

from collective.forming import make_backend, meet_ranks
from collective.header import GroupHeader
from collective.home import find_home
from collective.preflight import Preflight
from compiled_dag.shm.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.home import Home
    from collective.member import Member
    from collective.process_group import ProcessGroup
    from collective.standing import MemberPart
    from compiled_dag.host import ActorContext
    from compiled_dag.shm.waiter import Waiter

_lock = threading.Lock()
_members: dict[str, Member] = {}


def find_member(name: str) -> Member | None:
    """Return this process's end of a group, or None."""
    member = _members.get(name)
    if member is not None and member.is_over:
        leave(member)
        return None
    return member


def names() -> list[str]:
    """Return the names of the groups that this process is in."""
    return sorted(_members)


def leave(member: Member) -> None:
    """Leave a group."""
    with _lock:
        if _members.get(member.name) is member:
            del _members[member.name]
    home = find_home()
    home.resources.pop(_key(member.group_id), None)
    member.close()
    home.tell("leave", member.group_id, member.rank)


def check_free(name: str) -> None:
    """Refuse to be in two groups of one name.

    Raises:
        RuntimeError: This process is in one already.
    """
    member = find_member(name)
    if member is not None:
        msg = (
            f"this actor is in a group {name!r} already: {member!r}. Destroy it first "
            f"(destroy_collective_group({name!r})), or use another group_name"
        )
        raise RuntimeError(msg)


def join(home: Home, part: MemberPart, fds: Sequence[int]) -> Member:
    """Join a group: meet the other ranks, have the backend connect them.

    Args:
        home: The way to the session's groups.
        part: Which rank of what.
        fds: The group's header, and the memory between two ranks each; owned from here on.

    Raises:
        RuntimeError: This process is in a group of that name, or the backend failed.
        TimeoutError: Not all ranks came in time.
        ChannelClosedError: The group has been given up.
    """
    try:
        check_free(part.name)
    except RuntimeError:
        _close_all(fds)
        raise
    member = make_member(home, part, fds)
    with _lock:
        _members[part.name] = member
    home.resources[_key(part.group_id)] = member
    return member


def make_member(home: Home, part: MemberPart, fds: Sequence[int]) -> Member:
    """Return this process's end, once all ranks are there; see `join`."""
    # torch is imported by the first group only, and never by the driver.
    from collective.member import Member  # noqa: PLC0415
    from collective.rank import RankGroup  # noqa: PLC0415
    from collective.standing import Patience  # noqa: PLC0415

    waiter = home.waiter
    header = GroupHeader(Segment(fds[0]), len(part.processes), home.board, part.processes)
    flight = Preflight(header, part.rank, waiter)
    patience = Patience(home)
    try:
        meet_ranks(header, part.rank, part.join_timeout_s, waiter)
        backend = _make_backend(header, flight, part, cast("Waiter", patience))
    except BaseException:
        _close_all(fds)
        raise
    import hashlib  # noqa: F401, PLC0415  now, not in the first operation (`Preflight`)

    end = RankGroup(header, flight, backend, part.rank, home.main_waiter)
    return Member(home, part, Segment(fds[1]), end, patience)


def _make_backend(
    header: GroupHeader, flight: Preflight, part: MemberPart, waiter: Waiter
) -> ProcessGroup:
    if part.made_by is not None:
        from collective.registered_group import RegisteredGroup  # noqa: PLC0415  as above

        size = header.world_size
        return RegisteredGroup(part.backend, part.made_by, size, part.rank, part.name)
    timeout_s = part.join_timeout_s
    return make_backend(
        part.backend,
        header,
        flight,
        part.rank,
        waiter,
        timeout_s,
        may_fall_back=part.may_fall_back,
    )


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _key(group_id: int) -> str:
    return f"eager group {group_id}"


def _forget_all() -> None:
    """Be in no group, in a forked child: its parent is."""
    global _lock  # noqa: PLW0603  another thread of the parent may have held it
    _lock = threading.Lock()
    _abandoned.extend(_members.values())
    _members.clear()


_abandoned: list[Any] = []
"""What belongs to the parent process, and must not be closed here."""

os.register_at_fork(after_in_child=_forget_all)


# --- what the driver has an actor run -------------------------------------------------------------


def join_member(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Join a group (a `SystemCall`)."""
    join(find_home(), pickle.loads(payload), fds)
    return b""


def leave_member(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Leave a group (a `SystemCall`); fine if this process is not in it."""
    member = context.resources.get(_key(int(payload)))
    if member is not None:
        leave(member)
    return b""
