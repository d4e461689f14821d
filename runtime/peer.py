"""One process as a client of the session: the references it holds, and what it asks for.

Every object has its home in the driver. A process that has a reference is noted here with the
object and the number of times the reference was sent to it; it says when its last copy is gone, and
how many arrivals that settles, so that one that is on its way meanwhile still counts.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from compiled_dag.errors import ExecutorError
from compiled_dag.outcome import Error
from compiled_dag.shm.board import FORKS, Board
from runtime.messages import (
    Answer,
    AnswerWith,
    Ask,
    AskWith,
    CallRequest,
    Died,
    Put,
    Release,
    Resolved,
    Submit,
    TaskRequest,
    Want,
    WatchDeaths,
)
from runtime.objects import ObjectRef
from runtime.parcel import StoredParcel
from runtime.questions import Later, WithFds
from runtime.system_call import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.errors import ActorDiedError
    from compiled_dag.host import ActorId
    from runtime.messages import Message
    from runtime.parcel import Parcel
    from runtime.pool import PoolWorker
    from runtime.session import Session


_MOST_LENT: Final = 128
"""Large arguments that are kept, each with a descriptor, until the process is done with them. If it
has more, it sees the oldest as long as it likes, too, but their memory is not used again."""


class Peer:
    """The driver's side of one process that uses the session. Any thread may use it."""

    def __init__(
        self,
        session: Session,
        line: int,
        send: Callable[[Message], None],
        worker: PoolWorker | None = None,
    ) -> None:
        """Make the record of a process.

        Args:
            session: What it uses.
            line: The process's line on the board.
            send: Sends it a message, from any thread.
            worker: It, if it runs tasks.
        """
        self.worker = worker
        self.line = line
        self._session = session
        self._send = send
        self._lock = threading.Lock()
        self._held: dict[int, list[Any]] = {}
        """By number: the reference, how often it was sent, and the process's forks until then."""
        self._lent: dict[int, list[Any]] = {}
        """The same of parcels whose memory it may see without a reference."""
        self._forks = Board.word_index(line, FORKS)
        self._stop_watching: Callable[[], None] | None = None

    # --- references it holds

    def lend(self, references: Sequence[Any]) -> list[Any]:
        """Take note of references that are being sent to it; returns those that are new to it."""
        fresh = []
        with self._lock:
            for reference in references:
                entry = self._held.setdefault(reference.number, [reference, 0, self._num_forks()])
                entry[1] += 1
                if entry[1] == 1:
                    fresh.append(reference)
        return fresh

    def lend_memory(self, parcel: Parcel) -> None:
        """Take note of memory that it will see until it says that it is done."""
        with self._lock:
            entry = self._lent.setdefault(parcel.number, [parcel, 0, self._num_forks()])
            entry[1] += 1
            if len(self._lent) > _MOST_LENT:
                entry = self._lent.pop(next(iter(self._lent)))
                entry[0].exclusive = False
        del entry  # outside the lock, see below

    def _num_forks(self) -> int:
        return self._session.board.words[self._forks]

    def find(self, number: int) -> Any:
        """Return a reference that it holds."""
        entry = self._held.get(number)
        if entry is None:
            try:
                return self._session.store.find_stray(number)
            except RuntimeError as error:
                raise OSError(f"reference {number} is not known") from error
        return entry[0]

    def held(self, number: int) -> Any | None:
        """Return a reference that it holds, or None."""
        entry = self._held.get(number)
        return None if entry is None else entry[0]

    def clear(self) -> None:
        """Let go of everything: the process is gone."""
        with self._lock:
            gone = [*self._held.values(), *self._lent.values()]
            self._held, self._lent = {}, {}
            self._note_forks(gone)
        gone.clear()
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        self._session.claims.has_died(self.line)

    def _release(self, counts: Sequence[tuple[int, int]]) -> None:
        gone = []
        with self._lock:
            for number, count in counts:
                table = self._held if number in self._held else self._lent
                entry = table.get(number)
                if entry is not None:
                    entry[1] -= count
                    if entry[1] <= 0:
                        gone.append(table.pop(number))
            self._note_forks(gone)
        gone.clear()  # outside the lock: what goes with them may release others

    def _note_forks(self, gone: Sequence[list[Any]]) -> None:
        """Have memory not be used again that children of the process may see."""
        forks = self._num_forks()
        for thing, _, before in gone:
            parcel = getattr(thing, "parcel", thing)
            if before != forks and isinstance(parcel, StoredParcel):
                parcel.exclusive = False

    # --- what it says

    def handle(self, message: Any) -> None:
        """Do what the process wants."""
        kind = message.__class__
        if kind is Submit:
            self._submit(message)
        elif kind is Put:
            ref = ObjectRef("put", self._session, message.number)
            ref.complete(message.parcels[0])
            self.lend([ref])
        elif kind is Want:
            for number in message.numbers:
                self._bring(number)
            self._session.waits.arm()
        elif kind is Release:
            self._release(message.counts)
        elif kind is Ask:
            self._answer(message, message.parcels)
        elif kind is AskWith:
            self._answer(message, message.fds)
        elif kind is WatchDeaths and self._stop_watching is None:
            self._stop_watching = self._session.watch(self._report_death)

    def _report_death(self, actor_id: ActorId, error: ActorDiedError) -> None:
        self._send(Died(actor_id=actor_id, error=pickled_exception(error)))

    def _submit(self, message: Submit) -> None:
        (parcel,) = message.parcels
        if message.number:
            self._session.note_code(parcel)
            self._session.store.keep(message.number, message.head.decode(), parcel)
            return
        request: TaskRequest | CallRequest = pickle.loads(message.head)
        try:
            refs = self._carry_out(request, parcel)
        except Exception as error:  # noqa: BLE001  too many calls, say: who gets them is told
            refs = [ObjectRef("a call", self._session, number) for number in request.numbers]
            for ref in refs:
                ref.fail(error)
        self.lend(refs)

    def _carry_out(self, request: TaskRequest | CallRequest, parcel: Parcel) -> Sequence[ObjectRef]:
        needed = [self.find(number) for number in request.needed]
        if isinstance(request, TaskRequest):
            function = self._session.store.function(request.function)
            refs = self._session.scheduler.submit(
                function, request.options, parcel, needed, request.numbers
            )
            self._note_child(refs)
            return refs
        actor = self._session.actor(request.actor_id)
        return actor.submit(
            request.method,
            parcel,
            needed,
            request.numbers,
            request.retry,
            streams=request.streams,
        )

    def _note_child(self, refs: Sequence[ObjectRef]) -> None:
        """Note whose task has submitted this one: who cancels that cancels this."""
        parent = None if self.worker is None else self.worker.current()
        if parent is not None and refs:
            parent.children.append(weakref.ref(refs[0].source))

    def _bring(self, number: int) -> None:
        ref = self.find(number)
        ref.when_done(lambda: self._send(_outcome(ref)))

    def _answer(self, message: Ask | AskWith, extra: Sequence[Any]) -> None:
        try:
            what, args = pickle.loads(message.what)
            value = getattr(self._session.questions, what)(self, extra, *args)
            if isinstance(value, Later):
                value.then(lambda found: self._send(answer_of(message.number, found)))
                return
            answer: Message = answer_of(message.number, value)
        except Exception as error:  # noqa: BLE001  the process that asked raises it
            answer = Answer(number=message.number, failed=True, data=pickled_exception(error))
        self._send(answer)


def answer_of(number: int, value: Any) -> Answer | AnswerWith:
    """Return the answer to a question; an exception fails it."""
    if isinstance(value, WithFds):
        return AnswerWith(number=number, data=pickle.dumps(value.value, 5), fds=tuple(value.fds))
    if isinstance(value, Failure):
        return Answer(number=number, failed=True, data=pickled_exception(value.error))
    return Answer(number=number, failed=False, data=pickle.dumps(value, 5))


def _outcome(ref: ObjectRef) -> Resolved:
    parcels: Sequence[Parcel] = () if ref.parcel is None else (ref.parcel,)
    error = b"" if ref.error is None else pickled_exception(ref.error)
    return Resolved(ref.number, error, parcels)


def pickled_exception(error: BaseException) -> bytes:
    """Pickle an exception, as text if it cannot be pickled itself."""
    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        pickle.loads(data)
    except Exception:  # noqa: BLE001  whatever its pickling raises: it travels as text
        made = Error.capture(error).exception()
        data = pickle.dumps(ExecutorError(str(made)), 5)
    return data
