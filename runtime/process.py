"""One actor as the driver knows it: what is called, cancelled, and told of it."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.interrupts import whole
from runtime import obituary
from runtime.arguments import pack_arguments
from runtime.calls import Calls, next_number
from runtime.checks import STREAM
from runtime.interruption import SIGNAL, announce_skip, may_run, name_cancelled
from runtime.life import Life
from runtime.messages import Call, Cancel
from runtime.objects import Lifeline, ObjectRef
from runtime.peer import Peer
from runtime.pending import CREATION
from runtime.stream import StreamEnd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.errors import ActorDiedError
    from compiled_dag.host import ActorId
    from runtime.link import Link
    from runtime.messages import Retry
    from runtime.options import ActorOptions
    from runtime.parcel import Parcel
    from runtime.pool import PoolWorker
    from runtime.session import Session
    from runtime.signatures import MethodSpec

_ONE: Final = (None,)


class ActorProcess:
    """An actor; lives as long as anybody asks about it, much longer than its process."""

    def __init__(
        self,
        session: Session,
        actor_id: ActorId,
        line: int,
        class_name: str,
        options: ActorOptions,
        worker: PoolWorker | None = None,
    ) -> None:
        self.session = session
        self.actor_id = actor_id
        self.line = line
        self.class_name = class_name
        self.options = options
        self.label = f"{class_name}({actor_id})" if worker is None else f"process {actor_id}"
        self.calls: Calls | PoolWorker = worker or Calls(
            self._creation_failed,
            most_pending=options.max_pending_calls,
            attempts=options.max_task_retries,
            restarts=bool(options.max_restarts),
        )
        self.life = Life(self)
        self.peer = Peer(session, line, self.calls.post, worker)
        self._lifeline: weakref.ref[Lifeline] | None = None
        self.methods: Mapping[str, MethodSpec] = {}
        """What can be called, for handles made elsewhere."""
        self.is_worker = worker is not None
        self.binds = itertools.count()
        """Numbers the calls of it that are drawn into graphs."""

    @property
    def pid(self) -> int:
        """0 until it has a process."""
        return self.life.pid

    @property
    def gone(self) -> bool:
        """Whether its process has ended, or will never be."""
        return self.life.gone

    @property
    def death(self) -> ActorDiedError | None:
        """Why it is dead, or None."""
        return self.calls.death

    @property
    def host(self) -> Session:
        """The session it belongs to."""
        return self.session.host

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it holds."""
        return self.options.num_gpus or 0

    @property
    def physical_gpus(self) -> tuple[str, ...]:
        """Names of the physical GPUs behind them; empty where they are fake or none."""
        return self.session.placement.physical_gpus(self.life.grant.gpu_ids)

    @property
    def can_be_found(self) -> bool:
        """Whether new handles may be made."""
        return self.death is None and not self.life.fate.released

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid else "starting"
        if self.death is not None:
            state = "dead"
        return f"<actor {self.label} {state}>"

    # --- from any thread

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        num_returns: int = 1,
        retry: Retry | None = None,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call; returns one reference per return value.

        Raises:
            TypeError: An argument cannot be sent.
        """
        parcel, needed = pack_arguments(args, kwargs)
        return self.submit(
            method, parcel, needed, _numbers(num_returns), retry, streams=num_returns == STREAM
        )

    @whole
    def submit(
        self,
        method: str,
        parcel: Parcel,
        needed: Sequence[ObjectRef],
        numbers: Sequence[int | None],
        retry: Retry | None = None,
        *,
        streams: bool = False,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call whose arguments are encoded; `numbers` are those of its references."""
        calls = self.calls
        assert calls.__class__ is Calls
        what = f"{self.class_name}.{method}"
        if "\0" in method:  # a concurrency group follows
            what = what.partition("\0")[0]
        number = next_number()
        if method == "__init__":
            number = CREATION
        if len(numbers) == 1:
            kind = StreamEnd if streams else ObjectRef
            refs: tuple[ObjectRef, ...] = (kind(what, self, numbers[0], number),)
        else:
            refs = tuple([ObjectRef(what, self, made, number) for made in numbers])
        count = STREAM if streams else len(refs)
        calls.add(Call(number, method.encode(), count, (parcel,)), needed, refs, retry)
        return refs

    def lifeline(self) -> Lifeline:
        """Return what all handles of this process share; the actor ends when it goes."""
        line = None if self._lifeline is None else self._lifeline()
        if line is None:
            line = Lifeline(self.actor_id, self, self.session.release)
            self._lifeline = weakref.ref(line)
        return line

    @property
    def where(self) -> str:
        """For messages."""
        if self.pid or self.death is not None:
            return f"on actor {self.label}"
        why = self.session.placement.waits_for(self)
        return f"on actor {self.label}, which has no process yet: {why}"

    def attend(self) -> Link | None:
        """Let the calling thread read the replies, until `Link.leave`; None if there are none."""
        link = self.calls.link
        if link is not None:
            link.attend()
        return link

    def cancel(self, ref: ObjectRef) -> None:
        """Cancel the call that makes `ref`."""
        assert isinstance(self.calls, Calls)
        number = self.calls.cancel(ref)
        if number is not None:
            self.skip(number)
            if may_run(self.session.board, self.line, number):
                self.interrupt(number)

    def skip(self, number: int) -> None:
        """Have the process pass over a call that it has not begun."""
        self.calls.post(Cancel(number=number))
        announce_skip(self.session.board, self.line)

    def interrupt(self, number: int) -> None:
        """Interrupt the call or task with this number, which has begun, if it still runs."""
        name_cancelled(self.session.board, self.line, number)
        self.life.signal(SIGNAL)

    def _creation_failed(self, failed: ObjectRef) -> None:
        try:
            failed.value()
        except BaseException as error:  # noqa: BLE001  whatever the constructor raised
            self.die(obituary.of_constructor(self.label, error))
        self.session.supervisor.call_soon(lambda: self.life.kill(""))

    # --- end

    def die(self, death: ActorDiedError) -> None:
        """Fail whatever is pending and what comes; the first reason stays."""
        if self.calls.fail(death):
            self.session.processes.has_died(self, death)

    def end_after_calls(self) -> None:
        """Have the actor end once it has served what is queued: nobody holds it any more."""
        self.life.fate.give_reason(obituary.UNUSED)
        self.calls.end()

    def stop_at_once(self, word: int, reason: str) -> None:
        """Have the actor end without serving its queue."""
        self.life.fate.give_reason(reason)
        self.calls.stop_at_once(word)


def _numbers(num_returns: int) -> tuple[None, ...]:
    if num_returns in (1, STREAM):
        return _ONE
    return (None,) * num_returns
