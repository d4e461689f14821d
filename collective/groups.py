"""The session's eager groups, in the driver: made, met, broken, destroyed.

Ranks find each other here, and nowhere else: by a call of the driver for all of them
(`Groups.create`), or by each of them asking for the same name (`Groups.meet`). Either way each gets
two descriptors, of the group's header and of the memory between two ranks, and joins with them.

What breaks a group (a death, a rank that is late) is kept here, the first cause of it, because all
ranks are to raise the same. The header's state tells them that there is one.

A group keeps no actor alive. It is forgotten when it was destroyed, or when its last rank has left
it or died. Methods wait, for ranks or for each other, so other processes' questions are answered on
threads.
"""

from __future__ import annotations

import copy
import gc
import itertools
import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from collective.backends import AUTO
from collective.choice import settled_backend
from collective.eager_group import EagerGroup
from collective.seats import Seats
from compiled_dag.errors import (
    ActorDiedError,
    CollectiveError,
    CollectiveMismatchError,
    CollectiveTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collective.standing import MemberPart
    from compiled_dag.host import Actor, ActorId, Host, Wait

_group_ids = itertools.count(1)
_DESTROY_S: Final = 5.0
"""How long destroying waits for the ranks to let go; a busy one does so later."""
_ROLLBACK_S: Final = 0.3
"""The same where a group has not formed: most often because one is busy."""


class GroupInfo(NamedTuple):
    """What is known of a group elsewhere."""

    name: str
    backend: str
    actors: tuple[ActorId, ...]
    """By rank."""


class Groups:
    """All eager groups of a session. Any thread may use it."""

    def __init__(self, host: Host, actor_of: Callable[[ActorId], Any]) -> None:
        """Begin without groups.

        Args:
            host: The session.
            actor_of: Returns what is known of an actor: as `compiled_dag.host.Actor`, and
                `can_be_found`: whether anybody can still get a handle of it.
        """
        self._host = host
        self._actor_of = actor_of
        self._lock = threading.RLock()
        """Taken by itself: a condition's `with` is written in Python, where Ctrl-C may come."""
        self._changed = threading.Condition(self._lock)
        self._groups: dict[int, EagerGroup] = {}
        self._seats: dict[str, Seats] = {}
        host.watch(self._on_death)
        host.at_shutdown(lambda _: self.close())

    # --- made from outside

    def create(
        self, actors: Sequence[ActorId], backend: str, made_by: Any, name: str, timeout_s: float
    ) -> GroupInfo:
        """Make a group of `actors`, ranks in this order; returns when all have joined.

        Raises:
            RuntimeError: The name is taken, an actor is in a group of that backend, or the backend
                failed.
            ValueError: The backend cannot run on these actors.
            CollectiveTimeoutError: An actor did not join in time.
            ActorDiedError: One is dead, or died meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        known = [self._actor_of(actor_id) for actor_id in actors]
        lines = tuple(self._line(actor, deadline) for actor in known)
        # Now it is known which GPUs they have.
        asked, backend = backend, settled_backend(backend, known)
        name = name or str(uuid.uuid4())
        group_id = self._new_id()
        if self._holders(name):
            gc.collect()  # handles in garbage keep actors, and those the name
        try:
            with self._lock:
                self._check_new(name, backend, known)
                group = self._open(
                    group_id, name, asked, backend, known, lines, timeout_s, created=True
                )
            group.join_all(made_by, deadline)
            return GroupInfo(group.name, group.backend, group.actor_ids)
        except BaseException:  # Ctrl-C too, on any line
            made = self._groups.get(group_id)
            if made is not None:
                self._remove(made, _ROLLBACK_S)
            raise

    def _check_new(self, name: str, backend: str, actors: Sequence[Actor]) -> None:
        living = self._all()
        holders = self._holders(name)
        if holders:
            labels = ", ".join(map(self._label, holders[0].actor_ids))
            msg = (
                f"a group {name!r} of {labels} exists: destroy it first "
                f"(destroy_collective_group({name!r})), or use another name"
            )
            raise RuntimeError(msg)
        for actor in actors:
            for group in living:
                if group.created and group.backend == backend and group.has(actor.actor_id):
                    msg = (
                        f"{actor.label} is in the {backend} group {group.name!r} already, and can "
                        "be in one group of a backend at a time: destroy that one first"
                    )
                    raise RuntimeError(msg)

    def _holders(self, name: str) -> list[EagerGroup]:
        """Return the groups of a name, but for those whose actors nobody can call any more.

        An actor whose handles are gone ends by itself, after its calls: nobody waits for that.
        """
        return [group for group in self._all() if group.name == name and self._is_held(group)]

    def _label(self, actor_id: ActorId) -> str:
        label: str = self._actor_of(actor_id).label
        return label

    def _is_held(self, group: EagerGroup) -> bool:
        return any(self._actor_of(one).can_be_found for one in group.actor_ids if group.has(one))

    def _line(self, actor: Actor, deadline: float) -> int:
        try:
            return self._host.line(actor.actor_id, deadline)
        except TimeoutError as error:
            raise CollectiveTimeoutError(f"the group did not form: {error}") from None

    def find(self, actors: Sequence[ActorId], backend: str | None) -> list[GroupInfo]:
        """Return the groups that have all of `actors`, and run on `backend` if one is given."""
        with self._lock:
            return [
                GroupInfo(group.name, group.backend, group.actor_ids)
                for group in self._groups.values()
                if group.created
                and backend in (None, group.backend)
                and all(map(group.has, actors))
                and self._is_held(group)
            ]

    def destroy(self, name: str) -> None:
        """Destroy a group; a rank that is in an operation raises there.

        Raises:
            ValueError: There is none of that name.
        """
        named = self._holders(name) or [one for one in self._all() if one.name == name]
        if not named:
            known = ", ".join(sorted({repr(group.name) for group in self._all()}))
            msg = f"there is no collective group {name!r}; there are: {known or 'none'}"
            raise ValueError(msg)
        for group in named:
            self._remove(group)

    def destroy_all(self) -> None:
        """Destroy all groups that were made from outside."""
        for group in self._all():
            if group.created:
                self._remove(group)

    def _all(self) -> list[EagerGroup]:
        with self._lock:
            return list(self._groups.values())

    # --- made by the ranks

    def meet(
        self,
        actor_id: ActorId,
        name: str,
        world_size: int,
        rank: int,
        backend: str,
        timeout_s: float,
    ) -> tuple[MemberPart, Sequence[int]]:
        """Wait until `world_size` actors have asked for a name; returns what one needs to join.

        Returns:
            Which rank of what; two descriptors, which are the caller's.

        Raises:
            CollectiveMismatchError: Others ask for another size or backend.
            RuntimeError: Another actor has the rank.
            ValueError: The backend cannot run on these actors.
            CollectiveTimeoutError: Not all came in time.
            ActorDiedError: Another one died meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            seats = self._seats.get(name)
            if seats is None:
                seats = self._seats[name] = Seats(
                    name=name, world_size=world_size, backend=backend, label_of=self._label
                )
            try:
                seats.take(actor_id, world_size, rank, backend)
            except CollectiveMismatchError as error:  # for all of them
                self._give_up(name, seats, error)
            if len(seats.actors) == seats.world_size and seats.error is None:
                self._complete(seats, name, timeout_s)
            while seats.group is None and seats.error is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    self._give_up(name, seats, seats.late(timeout_s))
            if seats.group is None:
                assert seats.error is not None
                raise copy.copy(seats.error)
            group = seats.group
            part = group.part(rank, None, timeout_s)
            return part, [os.dup(fd) for fd in group.fds]

    def _complete(self, seats: Seats, name: str, timeout_s: float) -> None:
        actors = [self._actor_of(seats.actors[rank]) for rank in range(seats.world_size)]
        try:
            backend = settled_backend(seats.backend, actors)
            # At once: they have asked; and who has the lock must not wait for the supervision.
            lines = tuple(self._line(actor, time.monotonic()) for actor in actors)
            group = self._open(
                self._new_id(),
                name,
                seats.backend,
                backend,
                actors,
                lines,
                timeout_s,
                created=False,
            )
        except (ValueError, CollectiveError, ActorDiedError, OSError) as error:
            self._give_up(name, seats, error)
            return
        seats.group = group
        del self._seats[name]
        self._changed.notify_all()

    def _give_up(self, name: str, seats: Seats, error: Exception) -> None:
        seats.error = seats.error or error
        if self._seats.get(name) is seats:
            del self._seats[name]
        self._changed.notify_all()

    # --- what becomes of them

    def _new_id(self) -> int:
        return self._host.process << 32 | next(_group_ids)

    def _open(
        self,
        group_id: int,
        name: str,
        asked: str,
        backend: str,
        actors: Sequence[Actor],
        lines: tuple[int, ...],
        timeout_s: float,
        *,
        created: bool,
    ) -> EagerGroup:
        group = EagerGroup(
            self._host,
            actors,
            lines,
            group_id=group_id,
            name=name,
            backend=backend,
            may_fall_back=asked == AUTO,
            timeout_s=timeout_s,
            created=created,
        )
        self._groups[group_id] = group  # before it has anything that Ctrl-C could lose
        try:
            group.open(actors)
        except BaseException:
            group.close()
            self._groups.pop(group_id, None)
            raise
        for actor in actors:  # one that died before the group was known
            death = self._host.death(actor.actor_id)
            if death is not None:
                group.fail(death)
        return group

    def _remove(self, group: EagerGroup, within_s: float = _DESTROY_S) -> None:
        try:
            group.destroy(time.monotonic() + within_s)
        finally:
            if group.is_closed:  # otherwise Ctrl-C came first: it can be destroyed again
                with self._lock:
                    self._groups.pop(group.id, None)

    def fail(self, group_id: int, error: Exception) -> Exception:
        """Break a group, unless it is broken; returns the first cause of that."""
        group = self._groups.get(group_id)
        if group is None:
            return error
        if isinstance(error, CollectiveTimeoutError) and group.failure is None:
            error = group.with_states(error, self._host)
        return group.fail(error)

    def suspect(self, group_id: int, error: Exception) -> None:
        """Take note of a failure that may be the first; unless a death is told, `fail` follows."""
        group = self._groups.get(group_id)
        if group is not None:
            group.suspicion = group.suspicion or error

    def failure(self, group_id: int) -> Exception | None:
        """Return what broke a group; None if nothing has, or it is gone."""
        group = self._groups.get(group_id)
        return None if group is None else group.failure

    def leave(self, group_id: int, rank: int) -> None:
        """Take note that a rank has let go of its end."""
        group = self._groups.get(group_id)
        if group is not None:
            self._lose(group, rank)

    def _lose(self, group: EagerGroup, rank: int) -> None:
        if group.lose(rank):
            with self._lock:
                self._groups.pop(group.id, None)
            group.close()

    def wait_in(self, group_id: int, actor_id: ActorId, for_s: float) -> Wait | None:
        """Return what an actor that waits in a group waits for."""
        group = self._groups.get(group_id)
        return None if group is None else group.wait_of(actor_id, for_s)

    def _on_death(self, actor_id: ActorId, error: ActorDiedError) -> None:
        with self._lock:
            for name, seats in list(self._seats.items()):
                if actor_id in seats.actors.values():
                    self._give_up(name, seats, error)
            groups = [group for group in self._groups.values() if group.has(actor_id)]
        for group in groups:
            group.fail(error)
            self._lose(group, group.actor_ids.index(actor_id))

    def close(self) -> None:
        """End all groups: the session ends. Idempotent."""
        ended = RuntimeError("the session has ended (runtime.shutdown)")
        with self._lock:
            groups, self._groups = list(self._groups.values()), {}
            for name, seats in list(self._seats.items()):
                self._give_up(name, seats, ended)
        for group in groups:
            group.close()
