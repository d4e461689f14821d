"""One eager group, in the driver."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import cloudpickle

from collective import header as head
from collective.group import memory_for, settle
from collective.group_memory import GroupMemory
from collective.header import PEER
from collective.join import join_member, leave_member
from collective.record import operation_of
from collective.standing import MemberPart
from compiled_dag.errors import (
    ActorDiedError,
    ChannelClosedError,
    CollectiveError,
    CollectiveTimeoutError,
)
from compiled_dag.host import Wait

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from compiled_dag.host import Actor, ActorId, Host, Pending

_SHORT_S: Final = 0.02
"""A rank that waits for its group may take as long to come, and a core be taken."""
_STATES_S: Final = 0.3
"""How long a time-out waits to be told what the ranks' processes do."""


class EagerGroup:
    """The driver's end of a group; owns its memory. Any thread may use it."""

    def __init__(
        self,
        host: Host,
        actors: Sequence[Actor],
        lines: tuple[int, ...],
        *,
        group_id: int,
        name: str,
        backend: str,
        may_fall_back: bool,
        timeout_s: float,
        created: bool,
    ) -> None:
        """Note what it is. It has no memory until `open`.

        Args:
            host: The session.
            actors: By rank. No handle is kept: a group keeps no actor alive.
            lines: Board line of each rank.
            group_id: Its number.
            name: What users call it.
            backend: What is to carry its operations.
            may_fall_back: Whether gloo will do where "cuda_ipc" is refused.
            timeout_s: Of every operation.
            created: Whether it is made from outside, not by its ranks.
        """
        self.id = group_id
        self.name = name
        self._chosen = backend
        self._may_fall_back = may_fall_back
        self.created = created
        self.actor_ids: tuple[ActorId, ...] = tuple(actor.actor_id for actor in actors)
        self.failure: Exception | None = None
        """Why it is broken; a death or the first failure."""
        self.suspicion: Exception | None = None
        """A backend's failure, which a death may turn out to have caused."""
        self._labels = tuple(actor.label for actor in actors)
        self._lines = lines
        self._timeout_s = timeout_s
        self._host = host
        self._present = set(range(len(actors)))
        self._lock = threading.Lock()
        self._memory = GroupMemory()

    def open(self, actors: Sequence[Actor]) -> None:
        """Make the memory, once; `close` gives it back, also what is there after an exception.

        Args:
            actors: By rank.

        Raises:
            MemoryCapError: It is not there.
        """
        self._memory.open(
            self._host.board,
            self._lines,
            nbytes=memory_for(self._chosen, actors),
            shares_gpu=self._chosen == "cuda_ipc",
        )

    @property
    def backend(self) -> str:
        """What carries its operations, once all have joined."""
        return "gloo" if self._memory.refusal else self._chosen

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors for the ranks: the header, and the memory between two of them."""
        return self._memory.fds

    def has(self, actor_id: ActorId) -> bool:
        """Tell whether an actor is a rank, and has not left."""
        return any(
            one == actor_id and rank in self._present for rank, one in enumerate(self.actor_ids)
        )

    @property
    def is_closed(self) -> bool:
        """Whether it has no memory: not yet, or not any more."""
        return self._memory.is_closed

    def part(self, rank: int, made_by: Any, join_timeout_s: float) -> MemberPart:
        """Return what a rank is told."""
        return MemberPart(
            group_id=self.id,
            name=self.name,
            rank=rank,
            processes=self._lines,
            labels=self._labels,
            backend=self._chosen,
            may_fall_back=self._may_fall_back,
            made_by=made_by,
            timeout_s=self._timeout_s,
            join_timeout_s=join_timeout_s,
        )

    # --- from outside

    def join_all(self, made_by: Any, deadline: float) -> None:
        """Have all ranks join; raises as `Groups.create`."""
        replies = []
        for rank, actor_id in enumerate(self.actor_ids):
            part = self.part(rank, made_by, max(0.0, deadline - time.monotonic()))
            payload = cloudpickle.dumps(part, protocol=5)
            replies.append(self._host.submit(actor_id, join_member, payload, self.fds))
        for label, reply in zip(self._labels, replies, strict=True):
            self._await_join(label, reply, deadline)

    def _await_join(self, label: str, reply: Pending, deadline: float) -> None:
        try:
            reply.result(deadline)
        except ActorDiedError:
            raise
        except (TimeoutError, ChannelClosedError, CollectiveError) as error:
            if self.failure is not None:
                raise self.failure from None
            raise CollectiveTimeoutError(self._why_not_formed(label, error)) from error

    def _why_not_formed(self, label: str, error: Exception) -> str:
        absent = [self._labels[rank] for rank in self._memory.header.absent()]
        why = f"{label}: {error}"
        if isinstance(error, TimeoutError) and absent:
            why = f"{', '.join(absent)} did not join in time: {self._why_late()}"
        return f"the {self.backend} group {self.name!r} did not form: {why}"

    def _why_late(self) -> str:
        if self._timeout_s < _SHORT_S:
            return f"timeout_s={self._timeout_s:g} is less than it takes to come, give some seconds"
        return "busy in another call"

    def destroy(self, deadline: float) -> None:
        """End the group, have all living ranks let go, and wait for them until `deadline`.

        Ctrl-C in the wait breaks off only that: the ranks have been asked, and the memory is given
        back. When it comes before, everything can be done again.
        """
        self._memory.end(head.CLOSED)
        replies = self._ask_to_leave()
        try:
            for reply in replies:
                settle(reply, deadline)
        finally:
            self.close()

    def _ask_to_leave(self) -> list[Pending]:
        replies: list[Pending] = []
        for rank in sorted(self._present):
            actor_id = self.actor_ids[rank]
            if self._host.death(actor_id) is None:
                try:
                    replies.append(self._host.submit(actor_id, leave_member, str(self.id).encode()))
                except RuntimeError:
                    break  # the session has ended meanwhile, and with it all its actors
        return replies

    # --- what becomes of it

    def fail(self, error: Exception) -> Exception:
        """Break it, unless it is broken; returns the first cause of that."""
        with self._lock:
            if self.failure is None:
                died = isinstance(error, ActorDiedError)
                self.failure = error if died else self.suspicion or error
            found = self.failure
        self._memory.end(head.BROKEN)
        return found

    def with_states(self, error: CollectiveTimeoutError, host: Host) -> CollectiveTimeoutError:
        """Return a time-out that also says which ranks' processes do not run: stopped, say."""
        living = [one for one in self.actor_ids if host.death(one) is None]
        found = host.activities(living, time.monotonic() + _STATES_S, stacks=True)
        odd = [
            f"rank {rank} ({self._labels[rank]}) is {found[actor_id].state}"
            for rank, actor_id in enumerate(self.actor_ids)
            if actor_id in found and found[actor_id].state
        ]
        return CollectiveTimeoutError(" ".join([str(error), *odd])) if odd else error

    def lose(self, rank: int) -> bool:
        """Take note that a rank is no more; returns whether none is left."""
        with self._lock:
            self._present.discard(rank)
            return not self._present

    def wait_of(self, actor_id: ActorId, for_s: float) -> Wait | None:
        """Return what a rank's main thread waits for in it."""
        if actor_id not in self.actor_ids:
            return None
        header, rank = self._memory.header, self.actor_ids.index(actor_id)
        peer = header.words[header.line(rank) + PEER] - 1
        missing = header.late(rank) if peer < 0 else [peer]
        operation = f"a message of group {self.name!r}"
        if peer < 0:
            turn = header.words[header.line(rank)]
            place = header.record(rank, turn)
            record = bytes(header.view[place : place + head.RECORD])
            operation = f"{operation_of(record)} of group {self.name!r}"
        names = ", ".join(f"rank {other} ({self._labels[other]})" for other in missing)
        return Wait(
            actor_id=actor_id,
            on=self.actor_ids[missing[0]] if missing else None,
            text=names or f"{self.backend}, where all ranks are",
            for_s=for_s,
            by=operation,
        )

    def close(self) -> None:
        """End it, and give its memory back. Idempotent."""
        self._memory.close()
