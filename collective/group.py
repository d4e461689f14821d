"""Groups of graphs, in the driver: formed, ended."""

from __future__ import annotations

import copy
import itertools
import pickle
import time
from typing import TYPE_CHECKING

from collective import cuda_area
from collective import header as head
from collective.forming import Join, join_group, leave_group
from collective.header import GroupHeader
from collective.slots import memory_bytes
from compiled_dag.errors import ActorDiedError, GraphError
from compiled_dag.host import with_stack
from compiled_dag.shm.segment import Segment, require_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.communicators import CommunicatorPart
    from compiled_dag.host import Actor, ActorId, Host, Pending, SystemCall

_group_ids = itertools.count(1)
_STACKS_S = 0.3
"""How long the stacks of those that are missing are waited for."""
_ROLLBACK_S = 0.3
"""How long a group that did not form waits for its ranks to let go; a busy one does so later."""


class DriverGroup:
    """The driver's end of a group; owns its memory.

    It has none until `open`: whoever is to close it has it before there is anything to close, so
    that Ctrl-C loses nothing on any line.
    """

    def __init__(
        self,
        host: Host,
        actors: Sequence[Actor],
        backend: str,
        communicator: CommunicatorPart | None = None,
        *,
        pairs: bool = False,
        may_fall_back: bool = False,
    ) -> None:
        """Note what it is.

        Args:
            host: The session.
            actors: By rank.
            backend: What is to carry its operations.
            communicator: The user's, which does the work.
            pairs: As in `Join`.
            may_fall_back: Whether gloo will do where "cuda_ipc" is refused.
        """
        self.id = host.process << 32 | next(_group_ids)
        self.leave: SystemCall = leave_group
        self.settled: tuple[str, str] | None = None
        """What it runs on instead of `backend`, and why; None if there is no such thing."""
        self._backend = backend
        self._may_fall_back = may_fall_back
        self._host = host
        self._actors = tuple(actors)
        self._communicator = communicator
        self._pairs = pairs
        self._leaving: dict[ActorId, Pending] = {}
        """Replies of the ranks that were asked to leave."""
        self._segment = Segment(-1)
        self._header: GroupHeader | None = None
        self._area: cuda_area.Area | None = None
        self._closed = False
        self._unwatch: list[Callable[[], None]] = []
        """How to stop hearing of deaths, while it forms."""

    def open(self, deadline: float) -> None:
        """Form the group, once, and wait until every rank has joined.

        Where this raises, nothing is left once `close` has been called.

        Args:
            deadline: When to give up.

        Raises:
            ActorDiedError: A member is dead, or dies meanwhile.
            GraphError: Not formed in time, or the backend failed.
            MemoryCapError: There is no memory for it.
        """
        try:
            header = self._make_header(deadline)
            self._join(header, deadline)
        except BaseException:  # Ctrl-C too
            self.close(time.monotonic() + _ROLLBACK_S)
            raise
        self._area = cuda_area.Area(header) if self._backend == "cuda_ipc" else None
        if self._area is not None and self._area.refusal:
            self.settled = "gloo", self._area.refusal

    def _make_header(self, deadline: float) -> GroupHeader:
        actors, host = self._actors, self._host
        self._processes = tuple(host.line(actor.actor_id, deadline) for actor in actors)
        nbytes = memory_for(self._backend, actors)
        GroupHeader.allocate(self._segment, len(actors), nbytes)
        self._header = GroupHeader(self._segment, len(actors), host.board, self._processes)
        return self._header

    @property
    def memory_fd(self) -> int:
        """Its shared memory."""
        return self._segment.fd

    @property
    def gpu_bytes(self) -> tuple[int, ...]:
        """How much GPU memory each rank has taken for the others to read, where that is known."""
        area = self._area  # another thread may close it
        return () if area is None else area.gpu_bytes

    def end(self, state: int) -> None:
        """Stop the group and wake all ranks; before `open` there are none.

        What has failed once does not end in peace: nobody is to wait for what was begun there.
        """
        header = self._header
        if header is not None:
            header.end(state if header.state in (head.OPEN, head.CLOSED) else head.BROKEN)

    def release(self) -> None:
        """Ask every living rank to drop its end, each once. Idempotent."""
        if self._closed or self._header is None:
            return
        self.end(head.CLOSED)
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
        self._area = None
        self._segment.close()
        self._watch_no_more()
        self._closed = True
        self._leaving.clear()

    def _join(self, header: GroupHeader, deadline: float) -> None:
        # A rank that dies will not be heard of by those that wait for it: they must be told.
        try:
            self._unwatch.append(self._host.watch(self._on_death))
            self._check_alive()
            replies = self._submit_joins(deadline)
            for actor, reply in zip(self._actors, replies, strict=True):
                self._await_join(header, actor, reply, deadline)
        finally:
            self._watch_no_more()

    def _watch_no_more(self) -> None:
        while self._unwatch:
            self._unwatch[-1]()
            self._unwatch.pop()

    def _submit_joins(self, deadline: float) -> list[Pending]:
        replies = []
        for rank, actor in enumerate(self._actors):
            join = Join(
                group_id=self.id,
                rank=rank,
                processes=self._processes,
                backend=self._backend,
                communicator=self._communicator,
                timeout_s=max(0.0, deadline - time.monotonic()),
                pairs=self._pairs,
                may_fall_back=self._may_fall_back,
            )
            fds = (self._segment.fd,)
            replies.append(self._host.submit(actor.actor_id, join_group, pickle.dumps(join), fds))
        return replies

    def _await_join(
        self, header: GroupHeader, actor: Actor, reply: Pending, deadline: float
    ) -> None:
        try:
            reply.result(deadline)
        except ActorDiedError:
            raise
        except Exception as error:
            self._check_alive()  # a death is why the others did not get on
            labels = ", ".join(actor.label for actor in self._actors)
            why = self._why(header, actor, error)
            msg = f"the {self._backend} group of {labels} did not form: {why}"
            raise GraphError(msg) from error

    def _why(self, header: GroupHeader, actor: Actor, error: Exception) -> str:
        absent = [self._actors[rank] for rank in header.absent()]
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
            self.end(head.BROKEN)

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
