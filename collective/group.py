"""Groups: formed from the driver, one end in every actor."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collective import cuda_area
from collective import header as head
from collective.forming import make_backend, meet_ranks
from collective.header import GroupHeader, Preflight
from collective.process_group import gloo_needs_calm
from collective.slots import memory_bytes
from compiled_dag.communicators import CommunicatorPart, end_in
from compiled_dag.errors import ActorDiedError, GraphError
from compiled_dag.host import with_stack
from compiled_dag.shm.segment import Segment, require_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.process_group import ProcessGroup
    from compiled_dag.host import Actor, ActorContext, ActorId, Host, Pending, SystemCall

_group_ids = itertools.count(1)
_STACKS_S = 0.3
"""How long the stacks of those that are missing are waited for."""
_ROLLBACK_S = 0.3
"""How long a group that did not form waits for its ranks to let go; a busy one does so later."""


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


class DriverGroup:
    """The driver's end of a group."""

    def __init__(
        self,
        host: Host,
        actors: Sequence[Actor],
        backend: str,
        deadline: float,
        communicator: CommunicatorPart | None = None,
        *,
        pairs: bool = False,
        may_fall_back: bool = False,
    ) -> None:
        """Form the group and wait until every rank has joined.

        Args:
            host: The session.
            actors: By rank.
            backend: What is to carry its operations.
            deadline: When to give up.
            communicator: The user's, which does the work.
            pairs: As in `Join`.
            may_fall_back: Whether gloo will do where "cuda_ipc" is refused.

        Raises:
            ActorDiedError: A member is dead, or dies meanwhile.
            GraphError: Not formed in time, or the backend failed.
        """
        self.id = host.process << 32 | next(_group_ids)
        self.leave: SystemCall = leave_group
        self.settled: tuple[str, str] | None = None
        """What it runs on instead of `backend`, and why; None if there is no such thing."""
        self._may_fall_back = may_fall_back
        self._host = host
        self._actors = tuple(actors)
        self._communicator = communicator
        self._pairs = pairs
        self._leaving: dict[ActorId, Pending] = {}
        """Replies of the ranks that were asked to leave."""
        self._closed = False
        processes = tuple(host.line(actor.actor_id, deadline) for actor in actors)
        segment = GroupHeader.create(len(actors), self.id, memory_for(backend, actors))
        self._header = GroupHeader(segment, len(actors), host.board, processes)
        try:
            self._join(processes, backend, deadline)
        except BaseException:
            self.close(time.monotonic() + _ROLLBACK_S)
            raise
        why_not_shared = cuda_area.Area(self._header).refusal if backend == "cuda_ipc" else ""
        if why_not_shared:
            self.settled = "gloo", why_not_shared
        on_gloo = backend == "gloo" or self.settled is not None
        self.needs_calm = on_gloo and gloo_needs_calm(len(actors))

    @property
    def memory_fd(self) -> int:
        """Its shared memory."""
        return self._header.segment.fd

    def end(self) -> None:
        """Break the group and wake all ranks."""
        self._header.end(head.BROKEN)

    def release(self) -> None:
        """Ask every living rank to drop its end, each once. Idempotent."""
        if self._closed:
            return
        self._header.end(head.CLOSED)
        for actor in self._actors:
            asked = actor.actor_id in self._leaving
            if asked or self._host.death(actor.actor_id) is not None:
                continue
            payload = str(self.id).encode()
            try:
                reply = self._host.submit(actor.actor_id, leave_group, payload)
            except RuntimeError:
                return  # the session has ended meanwhile, and with it all its actors
            self._leaving[actor.actor_id] = reply

    def close(self, deadline: float) -> None:
        """Release the group and wait for the ranks until `deadline`. Idempotent."""
        self.release()
        for reply in self._leaving.values():
            settle(reply, deadline)
        self._header.close()
        self._closed = True
        self._leaving.clear()

    def _join(self, processes: tuple[int, ...], backend: str, deadline: float) -> None:
        # A rank that dies will not be heard of by those that wait for it: they must be told.
        unwatch = self._host.watch(self._on_death)
        try:
            self._check_alive()
            replies = self._submit_joins(processes, backend, deadline)
            for actor, reply in zip(self._actors, replies, strict=True):
                self._await_join(actor, reply, backend, deadline)
        finally:
            unwatch()

    def _submit_joins(
        self, processes: tuple[int, ...], backend: str, deadline: float
    ) -> list[Pending]:
        replies = []
        for rank, actor in enumerate(self._actors):
            join = Join(
                group_id=self.id,
                rank=rank,
                processes=processes,
                backend=backend,
                communicator=self._communicator,
                timeout_s=max(0.0, deadline - time.monotonic()),
                pairs=self._pairs,
                may_fall_back=self._may_fall_back,
            )
            fds = (self._header.segment.fd,)
            replies.append(self._host.submit(actor.actor_id, join_group, pickle.dumps(join), fds))
        return replies

    def _await_join(self, actor: Actor, reply: Pending, backend: str, deadline: float) -> None:
        try:
            reply.result(deadline)
        except ActorDiedError:
            raise
        except Exception as error:
            self._check_alive()  # a death is why the others did not get on
            labels = ", ".join(actor.label for actor in self._actors)
            msg = f"the {backend} group of {labels} did not form: {self._why(actor, error)}"
            raise GraphError(msg) from error

    def _why(self, actor: Actor, error: Exception) -> str:
        absent = [self._actors[rank] for rank in self._header.absent()]
        if not isinstance(error, TimeoutError) or not absent:
            return f"{actor.label}: {error}"
        labels = ", ".join(one.label for one in absent)
        lines = [f"{labels} did not join in time: busy in another call, or importing torch"]
        ids = [one.actor_id for one in absent]
        doing = self._host.activities(ids, time.monotonic() + _STACKS_S, stacks=True)
        for one in absent:
            seen = doing[one.actor_id]
            lines.append(with_stack(f"{one.label}: {seen or 'at'}", seen) if seen.stack else "")
        return "\n  ".join(filter(None, lines))

    def _on_death(self, actor_id: ActorId, _error: ActorDiedError) -> None:
        if any(actor.actor_id == actor_id for actor in self._actors):
            self.end()

    def _check_alive(self) -> None:
        for actor in self._actors:
            error = self._host.death(actor.actor_id)
            if error is not None:
                raise copy.copy(error)


def memory_for(backend: str, actors: Sequence[Actor]) -> int:
    """Return how much of the group's memory its backend uses.

    Raises:
        MemoryCapError: It is not there.
    """
    if backend == "cuda_ipc":
        return cuda_area.memory_bytes(len(actors))
    if backend != "shm":
        return 0
    nbytes = memory_bytes(len(actors))
    require_memory(nbytes, f"the shm group of {', '.join(actor.label for actor in actors)}")
    return nbytes


def settle(reply: Pending, deadline: float) -> None:
    """Wait for a rank to let go; one that is busy or dead has nothing we still need."""
    try:
        reply.result(deadline)
    except (TimeoutError, ActorDiedError):
        return


def open_group(
    host: Host,
    actors: Sequence[Actor],
    backend: str,
    deadline: float,
    communicator: CommunicatorPart | None = None,
    *,
    may_fall_back: bool = False,
) -> DriverGroup:
    """Form a group of `actors`, ranks in this order."""
    return DriverGroup(host, actors, backend, deadline, communicator, may_fall_back=may_fall_back)


# --- what the driver has an actor run -------------------------------------------------------------


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
