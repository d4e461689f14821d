"""Collective groups outside graphs: making them, asking about them, ending them.

From outside, for a list of actors (`create_collective_group`), or by the actors themselves, each
of which calls `init_collective_group` with the same name. The operations are those of graphs,
called instead of bound (`collective.calls`), and `send` and `recv`.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Any

from collective.backends import parse_backend
from collective.handle import CommunicatorHandle
from collective.home import find_home, member_home
from collective.kinds import DEFAULT_GROUP
from collective.ops import ReduceOp, check_root
from compiled_dag.keywords import strict_keywords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.member import Member


# --- from outside


@strict_keywords
def create_collective_group(
    actors: Sequence[Any],
    backend: str = "auto",
    name: str | None = None,
    *,
    ranks: Sequence[int] | None = None,
    timeout_s: float = 30.0,
) -> CommunicatorHandle:
    """Make a group of actors; returns when all of them have joined.

    Their methods then call the operations with the group's name: ``collective.allreduce(tensor,
    group_name)``. Callable in the driver, and in actors and tasks for handles that they hold; not
    in a method of one of `actors`, unless it runs calls elsewhere than on its main thread.

    Args:
        actors: Handles; an actor's position is its rank, unless `ranks` says otherwise.
        backend: ``"auto"`` (NCCL where every actor has a physical GPU of its own, ``"cuda_ipc"``
            where all share one, gloo otherwise), ``"gloo"``, ``"nccl"``, ``"shm"``,
            ``"cuda_ipc"``, or one that was registered
            (`register_collective_backend`). ``"torch_gloo"`` is gloo.
        name: What the actors will call it; None makes one up.
        ranks: The rank of each actor.
        timeout_s: Within how many seconds the group has to form; and, in every operation later, how
            long a rank waits for the others.

    Raises:
        ValueError: An actor stands twice, there is none, or the backend is unknown or cannot run
            on them.
        RuntimeError: `ranks` is no permutation; the name is taken; an actor is in a group of that
            backend already; the backend failed.
        CollectiveTimeoutError: An actor did not join in time, for example because it is busy.
        ActorDiedError: One is dead, or died meanwhile.
        TypeError: One is no handle of an actor.
    """
    key, made_by = parse_backend(backend)
    _check_new_name(name)
    home = find_home()
    handles = _listed("create_collective_group", actors)
    ids = [home.id_of(handle) for handle in handles]
    if not ids:
        raise ValueError("create_collective_group: there are no actors")
    twice = [handle for handle, id_ in zip(handles, ids, strict=True) if ids.count(id_) > 1]
    if twice:
        at = [position for position, id_ in enumerate(ids) if ids.count(id_) > 1][:2]
        msg = (
            f"create_collective_group: {twice[0]!r} stands twice among the actors, at positions "
            f"{at[0]} and {at[1]}: an actor is one rank"
        )
        raise ValueError(msg)
    if ranks is not None:
        handles = _by_rank(handles, ranks)
    _check_timeout(timeout_s)
    order = [home.id_of(handle) for handle in handles]
    made = home.ask("create", order, key, made_by, name or "", timeout_s)
    return CommunicatorHandle(handles, made.name, made.backend)


def _listed(what: str, actors: Any) -> list[Any]:
    """Return the handles that are given, as a list; refuses a handle that is alone."""
    try:
        return list(actors)
    except TypeError:
        msg = (
            f"{what} takes a list of actors, [actor, ...], not {type(actors).__name__} ({actors!r})"
        )
        raise TypeError(msg) from None


def _by_rank(handles: list[Any], ranks: Any) -> list[Any]:
    try:
        order = [operator.index(rank) for rank in ranks]
    except TypeError:
        order = []
    if sorted(order) != list(range(len(handles))):
        msg = (
            f"create_collective_group: ranks={ranks!r} must be a permutation of 0 to "
            f"{len(handles) - 1}, the rank of each of the {len(handles)} actors"
        )
        raise RuntimeError(msg)
    return [handles[order.index(rank)] for rank in range(len(handles))]


@strict_keywords
def get_collective_groups(
    actors: Sequence[Any] | None = None, backend: str | None = None
) -> list[CommunicatorHandle]:
    """Return the groups that were made with `create_collective_group` and not been destroyed.

    Args:
        actors: Only groups that have all of these.
        backend: Only groups on this one.

    Raises:
        ValueError: The backend is unknown.
        TypeError: An actor is none.
    """
    home = find_home()
    given = () if actors is None else _listed("get_collective_groups", actors)
    ids = [home.id_of(actor) for actor in given]
    key = None if backend is None else parse_backend(backend)[0]
    return [
        CommunicatorHandle([home.handle_of(one) for one in info.actors], info.name, info.backend)
        for info in home.ask("find", ids, key)
    ]


@strict_keywords
def destroy_collective_group(group: CommunicatorHandle | str = DEFAULT_GROUP) -> None:
    """Destroy a group; in an actor that is in a group of that name, leave it.

    From outside, with the handle or the name: all ranks let go of the group; one that is in an
    operation raises `CollectiveError` there. In a member, with the name: only this rank leaves,
    after which it may join a group of that name again; ranks that wait for it raise. The group's
    memory is gone when the last rank has left.

    Raises:
        ValueError: There is no such group, or `group` is neither a handle nor a name.
    """
    if isinstance(group, CommunicatorHandle):
        find_home().ask("destroy", group.name)
        return
    _check_group(group)
    home = find_home()
    if home.actor_id is not None:
        from collective.join import find_member, leave  # noqa: PLC0415  only members need it

        member = find_member(group)
        if member is not None:
            leave(member)
            return
    home.ask("destroy", group)


def _check_group(group: object) -> None:
    if not isinstance(group, str):
        kind = type(group).__name__
        msg = f"destroy_collective_group takes a CommunicatorHandle or a name, not {kind}"
        raise ValueError(msg)  # noqa: TRY004  as Ray does


def destroy_all_collective_groups() -> None:
    """Destroy all groups that were made with `create_collective_group`."""
    find_home().ask("destroy_all")


# --- in actors


@strict_keywords
def init_collective_group(
    world_size: int,
    rank: int,
    backend: str = "auto",
    group_name: str = DEFAULT_GROUP,
    timeout_s: float = 30.0,
) -> None:
    """Join a group in an actor; returns when all ranks have called this with the same name.

    Args:
        world_size: Number of ranks.
        rank: This one's: 0 to `world_size` - 1.
        backend: As in `create_collective_group`; the same on all ranks.
        group_name: The name by which the ranks find each other, and call the group.
        timeout_s: How long to wait for the other ranks, here and in every operation, in seconds.

    Raises:
        RuntimeError: This is no actor, or it is in a group of that name; another actor has the
            rank; the backend failed.
        ValueError: The backend is unknown or cannot run on these actors; a number is out of range;
            `CollectiveMismatchError`, which is one: other ranks ask for another size or backend.
        CollectiveTimeoutError: Not all ranks came in time; names the missing ones.
        ActorDiedError: Another one died meanwhile.
    """
    home = member_home("init_collective_group")
    key, made_by = parse_backend(backend)
    _check_seat(world_size, rank)
    _check_name(group_name)
    _check_timeout(timeout_s)
    from collective.join import check_free, join  # noqa: PLC0415  only members need it

    check_free(group_name)
    seat = (home.actor_id, group_name, world_size, rank, key, timeout_s)
    part, fds = home.ask_with_fds("meet", *seat)
    join(home, dataclasses.replace(part, made_by=made_by), fds)


def _check_seat(world_size: object, rank: object) -> None:
    for name, value, least in (("world_size", world_size, 1), ("rank", rank, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            msg = f"init_collective_group: {name}={value!r} must be an int of {least} or more"
            raise ValueError(msg)
    assert isinstance(world_size, int)
    check_root("rank", rank, world_size)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name:
        return
    hint = ""
    if isinstance(name, CommunicatorHandle):
        hint = f": pass the handle's name, {name.name!r}"
    elif isinstance(name, ReduceOp):
        hint = f": a reduce op is given by name, op={name}"
    raise ValueError(f"group_name={name!r} must be a str that is not empty{hint}")


def _check_new_name(name: object) -> None:
    if name is not None and not (isinstance(name, str) and name):
        msg = (
            f"create_collective_group: name={name!r} must be a str that is not empty, or None to "
            "have one made up"
        )
        raise ValueError(msg)


def _check_timeout(timeout_s: object) -> None:
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not timeout_s > 0:
        raise ValueError(f"timeout_s={timeout_s!r} must be a number of seconds over 0")


@strict_keywords
def is_group_initialized(group_name: str = DEFAULT_GROUP) -> bool:
    """Tell whether this actor is in a group of that name."""
    return _find(group_name) is not None


@strict_keywords
def get_rank(group_name: str = DEFAULT_GROUP) -> int:
    """Return this actor's rank in a group; -1 if it is in none of that name."""
    member = _find(group_name)
    return -1 if member is None else member.rank


@strict_keywords
def get_collective_group_size(group_name: str = DEFAULT_GROUP) -> int:
    """Return how many ranks a group has; -1 if this actor is in none of that name."""
    member = _find(group_name)
    return -1 if member is None else member.world_size


@strict_keywords
def get_group_handle(group_name: str = DEFAULT_GROUP) -> Member:
    """Return this actor's end of a group, with `rank`, `world_size`, `backend` and `timeout_s`.

    Raises:
        RuntimeError: This is no actor, or it is in no group of that name.
    """
    return find_group("get_group_handle", group_name)


def _find(group_name: str) -> Member | None:
    from collective.join import find_member  # noqa: PLC0415  only members need it

    return find_member(group_name)


def find_group(what: str, group_name: str) -> Member:
    """Return this actor's end of a group.

    Raises:
        RuntimeError: This is no actor, or it is in no group of that name.
        ValueError: `group_name` is no name.
    """
    from collective.join import find_member, names  # noqa: PLC0415  only members need it

    _check_name(group_name)
    member = find_member(group_name)
    if member is None:
        home = member_home(what)
        known = ", ".join(map(repr, names())) or "none"
        msg = (
            f"{what}: {home.label} is in no collective group {group_name!r} (it is in: {known}). "
            f"Let all ranks call init_collective_group(world_size, rank, group_name="
            f"{group_name!r}), or make it from outside with create_collective_group(actors)"
        )
        raise RuntimeError(msg)
    return member
