"""The session as an actor or a task sees it: every object and actor has its home in the driver.

Submitting waits for nobody: the sender numbers the results itself. Outcomes come when asked for.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import cloudpickle

from compiled_dag.errors import ExecutorError
from compiled_dag.shm.waiter import Waiter
from runtime import context
from runtime.arguments import pack_arguments
from runtime.asking import Asking
from runtime.checks import STREAM
from runtime.messages import (
    Answer,
    AnswerWith,
    Died,
    GoesOn,
    Put,
    Release,
    Resolved,
    Submit,
    TaskRequest,
    Want,
)
from runtime.nested_host import NestedHost
from runtime.objects import Lifeline, ObjectRef, next_reference
from runtime.parcel import Parcel
from runtime.remote_actor import RemoteActor
from runtime.waiting import get_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compiled_dag.shm.board import Board, Doorbell
    from runtime.group_home import RemoteHome
    from runtime.ids import TaskId
    from runtime.mailbox import Mailbox
    from runtime.options import ActorOptions, TaskOptions


class _Arrivals(weakref.ref[Any]):
    """How often a living reference has arrived; its end is reported with that.

    Each reference has its own count, and a weak reference is dead before its callback runs: one
    that arrives while the last copy goes begins a count of its own.
    """

    __slots__ = ("count", "lent", "number")

    def __init__(self, reference: Any, gone: Callable[[Any], None]) -> None:
        super().__init__(reference, gone)  # type: ignore[call-arg]
        self.number: int = reference.number
        self.count = 0
        self.lent = False
        """Whether others were let find it (`NestedSession.lend`)."""

    def __new__(cls, reference: Any, gone: Callable[[Any], None]) -> _Arrivals:
        return super().__new__(cls, reference, gone)


def _nothing(_number: int) -> None:
    """Do what a lifeline does here when it goes: its arrivals are reported."""


class NestedSession:
    """The session in an actor's or a worker's process. Any of its threads may use it."""

    foreign = False
    closed = False
    where = "in the driver"

    def __init__(
        self, mailbox: Mailbox, doorbell: Doorbell, waiter: Waiter, board: Board, process: int
    ) -> None:
        """Use the session.

        Args:
            mailbox: How to talk to the driver.
            doorbell: This process's doorbell.
            waiter: The main thread's waiting policy.
            board: The session's board.
            process: This process's line on it.
        """
        self.host = NestedHost(self, board, process)
        """What graphs that are compiled here use."""
        self._mailbox = mailbox
        mailbox.receive_outcome = self._receive
        mailbox.find = self.find
        self._doorbell = doorbell
        self._main = waiter
        self._local = threading.local()
        self._live: dict[int, _Arrivals] = {}
        self._finding = threading.Lock()
        self._gone: deque[tuple[int, int]] = deque()
        self.on_gone: Callable[[], object] | None = None
        """Sees to it that `report_gone` is called soon. Takes no lock."""
        self._wanted: set[int] = set()
        self._reading = threading.Lock()
        self._awaited: list[ObjectRef] = []
        """By nobody who reads: those of futures."""
        self._reader: threading.Thread | None = None
        self.asking = Asking(self)
        self.owner_pid = os.getpid()
        self.in_task = False
        """Whether the main thread runs a task, whose CPUs others may use while it waits."""
        self.kept: dict[str, Any] = {}
        """What graphs and groups keep in this process, by key; closed when it ends."""

    @property
    def session(self) -> NestedSession:
        """Itself: the source of every reference here."""
        return self

    def check_owner(self) -> None:
        """Refuse use in a forked child."""
        if os.getpid() != self.owner_pid:
            raise RuntimeError(
                f"the session is used by process {self.owner_pid} ({context.label()}); this is its "
                f"forked child {os.getpid()}, which cannot. Submit work in the parent"
            )

    def abandon(self) -> None:
        """Make this forked child's copy inert; the worker closes the connections."""
        self.foreign = True

    # --- references

    def find(self, number: int) -> Any:
        """Return the reference with this number, which has just arrived once more."""
        with self._finding:
            arrivals = self._live.get(number)
            ref = None if arrivals is None else arrivals()
            if ref is None:
                if number < 0:
                    ref = Lifeline(-number, self, _nothing)
                else:
                    ref = ObjectRef("an object", self, number)
                arrivals = self._live[number] = _Arrivals(ref, self._has_gone)
            assert arrivals is not None
            arrivals.count += 1
            return ref

    def new_refs(self, what: str, count: int) -> tuple[ObjectRef, ...]:
        """Make references for results that are about to be asked for."""
        return tuple([self._new_ref(what) for _ in range(count)])

    def _new_ref(self, what: str) -> ObjectRef:
        ref = ObjectRef(what, self, next_reference())
        arrivals = self._live[ref.number] = _Arrivals(ref, self._has_gone)
        arrivals.count = 1
        return ref

    def _has_gone(self, arrivals: _Arrivals) -> None:
        """Note that the last copy of a reference here is gone. Takes no lock."""
        number = arrivals.number
        if self._live.get(number) is arrivals:
            del self._live[number]
            self._wanted.discard(number)
        self._gone.append((number, arrivals.count))
        if self.on_gone is not None:
            self.on_gone()

    def _find_living(self, number: int) -> Any:
        arrivals = self._live.get(number)
        return None if arrivals is None else arrivals()

    def pin(self, reference: Any) -> None:
        """Keep a reference that the user pickled on their own for as long as the session lives."""
        self.ask("pin", reference.number)

    def lend(self, reference: Any) -> None:
        """Let others find a reference for as long as it lives here."""
        arrivals = self._live[reference.number]
        if not arrivals.lent:
            self.ask("lend", reference.number)
            arrivals.lent = True

    def find_stray(self, number: int) -> Any:
        """Return a reference that was pickled by the user."""
        found = self._find_living(number)
        if found is None:
            self.ask("borrow", number)
            found = self.find(number)
        return found

    def report_gone(self) -> None:
        """Tell the driver which references are gone here."""
        if self._gone:
            counts = []
            while self._gone:
                counts.append(self._gone.popleft())
            self._mailbox.send(Release(counts=counts))

    # --- outcomes

    def _receive(self, message: Resolved | Answer | AnswerWith | Died) -> None:
        if isinstance(message, Died):
            self.host.has_died(message)
            return
        if isinstance(message, (Answer, AnswerWith)):
            self.asking.take(message)
            return
        ref = self._find_living(message.number)
        if ref is None or ref.done:
            return
        if message.error:
            ref.fail(_loaded(message.error))
        else:
            ref.complete(message.parcels[0])

    def attend(self) -> Mailbox:
        """Let the calling thread read what arrives."""
        return self._mailbox

    def tend(self) -> None:
        """Nothing to do: whoever waits reads, and `bring` has a thread read."""

    def bring(self, refs: Sequence[ObjectRef]) -> None:
        """Have outcomes brought that nobody here need wait for: a thread reads until they come."""
        self.report_gone()
        self._want(refs, blocks=False)
        with self._reading:
            self._awaited += [ref for ref in refs if not ref.done]
            if self._awaited and (self._reader is None or not self._reader.is_alive()):
                self._reader = threading.Thread(target=self._read, name="outcomes", daemon=True)
                self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(RuntimeError):  # the session has ended, and the process with it
            while True:
                self.wait_until(self._none_awaited, None)
                with self._reading:
                    self._awaited = [ref for ref in self._awaited if not ref.done]
                    if not self._awaited:
                        self._reader = None
                        return

    def _none_awaited(self) -> bool:
        return all(ref.done for ref in self._awaited)

    def _want(self, refs: Sequence[ObjectRef], *, blocks: bool, waits: bool = False) -> None:
        numbers = [ref.number for ref in refs if not ref.done and ref.number not in self._wanted]
        self._wanted.update(numbers)
        if numbers or blocks or waits:
            self.send(Want(numbers=numbers, blocks=blocks))

    @contextlib.contextmanager
    def expecting(self, refs: Sequence[ObjectRef]) -> Iterator[None]:
        """Have outcomes brought while the caller waits."""
        self.report_gone()
        self._mailbox.pump()  # what was sent along with the call may be all
        main = threading.current_thread() is threading.main_thread()
        waits = main and not all(ref.done for ref in refs)
        blocks = self.in_task and main and (waits or not refs)
        self._want(refs, blocks=blocks, waits=waits)
        try:
            yield
        finally:
            if blocks:
                self.send(GoesOn())

    def progress_of(self, ref: ObjectRef) -> str:
        """Return what the driver knows of a reference that is not ready, in words."""
        text: str = self.ask("progress_of", ref.number)
        return text

    def note_wait(self, ref: ObjectRef | None) -> None:
        """Show the driver what the main thread waits for: there may be a circle of such waits."""
        self.note_number(0 if ref is None else ref.number)

    def note_number(self, number: int) -> None:
        """Show the driver what the main thread waits for, by its number; 0: nothing."""
        if threading.current_thread() is threading.main_thread():
            self._mailbox.note_wait(number)

    @property
    def group_home(self) -> RemoteHome:
        """The way to the session's eager groups."""
        from runtime.group_home import RemoteHome  # noqa: PLC0415  for processes in such groups

        return RemoteHome(self)

    @property
    def main_waiter(self) -> Waiter:
        """The main thread's waiting policy."""
        return self._main

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy."""
        if threading.current_thread() is threading.main_thread():
            return self._main
        waiter: Waiter | None = getattr(self._local, "waiter", None)
        if waiter is None:
            waiter = self._local.waiter = Waiter(self._doorbell)
        return waiter

    def wait_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until `ready()`, taking what arrives; returns False at the deadline."""
        pump = self._mailbox.pump

        def look() -> bool:
            pump()
            return ready()

        return self.waiter.until(look, self._guard, deadline)

    def _guard(self) -> None:
        if self._mailbox.closed or self._mailbox.stopped:
            raise RuntimeError("the session has ended (runtime.shutdown)")

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Return the values of `refs`."""
        return get_all(self, refs, timeout)

    # --- what it can be asked

    def send(self, message: Any) -> None:
        """Send a message to the driver."""
        self.check_owner()
        self._mailbox.send(message)

    def ask(
        self,
        what: str,
        *args: Any,
        parcels: Sequence[Parcel] = (),
        fds: Sequence[int] = (),
        deadline: float | None = None,
    ) -> Any:
        """Ask the driver and wait for the answer; see `Asking.ask`."""
        return self.asking.ask(what, *args, parcels=parcels, fds=fds, deadline=deadline)

    def fileno(self) -> int:
        """Return the control socket's descriptor, to wait for news on."""
        return self._mailbox.fileno()

    def take(self) -> bool:
        """Take what has arrived; returns False once the driver has gone."""
        while self._mailbox.receive():
            pass
        return not (self._mailbox.closed or self._mailbox.stopped)

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""
        parcel = Parcel.of(value)
        ref = self._new_ref(f"put({type(value).__name__})")
        ref.complete(parcel)
        self.send(Put(ref.number, (parcel,)))
        return ref

    def next_export(self) -> int:
        """Return a number for a function."""
        return next_reference()

    def export_function(self, number: int, name: str, function: Any) -> None:
        """Have the driver keep a function."""
        self.send(Submit(number, name.encode(), (Parcel.of(function),)))

    def code_of(self, number: int) -> ObjectRef:
        """Return a reference to the plain function that is kept under a number."""
        ref: ObjectRef = self.find(self.ask("code", number))
        return ref

    def submit_task(
        self, function: int, options: TaskOptions, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[ObjectRef, ...]:
        """Run a task."""
        parcel, needed = pack_arguments(args, kwargs)
        count = options.num_returns
        refs = self.new_refs(options.name or "a task", 1 if count in (None, STREAM) else int(count))
        request = TaskRequest(function, options, _numbers(refs), _numbers(needed))
        # Not by pickle: the exceptions in `retry_exceptions` may be of __main__.
        self.send(Submit(0, cloudpickle.dumps(request, 5), (parcel,)))
        return refs

    def next_item(self, end: ObjectRef, position: int) -> ObjectRef | None:
        """Wait for an item of a stream; None at its end."""
        with self.expecting(()):
            number = self.ask("next_item", end.number, position)
        return None if number is None else self.find(number)

    def announce(self, end: ObjectRef, position: int) -> ObjectRef:
        """Return a reference that is ready once it is known what comes: whether an item does."""
        announced: ObjectRef = self.find(self.ask("announce", end.number, position))
        return announced

    def create(
        self,
        class_name: str,
        options: ActorOptions,
        arguments: tuple[Sequence[Any], Mapping[str, Any]],
        methods: Any,
    ) -> Lifeline:
        """Start an actor."""
        parcel, needed = pack_arguments(*arguments, hidden=1)
        args = (class_name, options, methods, _numbers(needed))
        actor_id = self.ask("create", *args, parcels=(parcel,))
        return self._lifeline(actor_id, class_name)

    def get_actor(self, name: str, namespace: str | None) -> tuple[Lifeline, Any]:
        """Return a named actor and its methods."""
        actor_id, class_name, methods = self.ask("get_actor", name, namespace)
        return self._lifeline(actor_id, class_name), methods

    def _lifeline(self, actor_id: int, class_name: str) -> Lifeline:
        lifeline: Lifeline = self.find(-actor_id)
        return self.adopt(lifeline, class_name)

    def adopt(self, lifeline: Lifeline, class_name: str) -> Lifeline:
        """Give a lifeline that arrived what its handles need."""
        if lifeline.owner is self:
            lifeline.owner = RemoteActor(self, lifeline.actor_id, class_name)
        return lifeline

    def resources(self, which: str) -> dict[str, float]:
        """Return the session's resources, or those that are free."""
        found: dict[str, float] = self.ask("resources", which)
        return found

    def kill(self, actor_id: int, *, no_restart: bool = True) -> None:
        """End an actor's process at once."""
        self.ask("kill", actor_id, no_restart)

    def task_id(self, ref: ObjectRef) -> TaskId | None:
        """Return the id of what makes the value of `ref`; None for a value given to `put`."""
        found: TaskId | None = self.ask("task_id", ref.number)
        return found

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel what makes a reference's value."""
        self.ask("cancel", ref.number, force, recursive)


def _loaded(error: bytes) -> BaseException:
    """Return an exception that the driver has pickled."""
    try:
        found: BaseException = pickle.loads(error)
    except Exception as cause:  # noqa: BLE001  part of it may be of a class that only the driver has
        return ExecutorError(f"a call failed, and its error cannot be rebuilt here: {cause!r}")
    return found


def _numbers(refs: Sequence[ObjectRef]) -> list[int]:
    return [ref.number for ref in refs]
