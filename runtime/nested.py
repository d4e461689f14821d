"""The session as an actor or a task sees it: every object and actor has its home in the driver.

Submitting waits for nobody: the sender numbers the results itself. Outcomes come when asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from compiled_dag.shm.waiter import Waiter
from runtime import context
from runtime.arguments import pack_arguments
from runtime.messages import (
    Answer,
    Ask,
    CallRequest,
    GoesOn,
    Put,
    Release,
    Resolved,
    Submit,
    TaskRequest,
    Want,
)
from runtime.objects import Lifeline, ObjectRef, next_reference
from runtime.options import STREAM
from runtime.parcel import Parcel
from runtime.waiting import get_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compiled_dag.shm.board import Doorbell
    from runtime.mailbox import Mailbox
    from runtime.messages import Retry
    from runtime.options import ActorOptions, TaskOptions


class _HeldRef(ObjectRef):
    """A reference in a process that is not the driver: its end is reported."""

    __slots__ = ()

    def __del__(self) -> None:
        self.source.gone(self.number)  # type: ignore[attr-defined]


class RemoteActor:
    """An actor, as handles outside the driver know it; `runtime.process.ActorProcess` there."""

    pid = 0
    death = None

    def __init__(self, session: NestedSession, actor_id: int, class_name: str) -> None:
        self.session = session
        self.actor_id = actor_id
        self.class_name = class_name
        self.label = f"{class_name}({actor_id})"

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        num_returns: int = 1,
        nested: bool = False,
        retry: Retry | None = None,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call; see `ActorProcess.call`."""
        parcel, needed = pack_arguments(args, kwargs, nested=nested)
        name, _, _ = method.partition("\0")
        streams = num_returns == STREAM
        refs = self.session.new_refs(f"{self.class_name}.{name}", 1 if streams else num_returns)
        request = CallRequest(
            self.actor_id, method, retry, streams, _numbers(refs), _numbers(needed)
        )
        self.session.send(Submit(0, pickle.dumps(request, 5), (parcel,)))
        return refs

    def __repr__(self) -> str:
        return f"<actor {self.label}>"

    def end_after_calls(self) -> None:
        """Have the actor end once it has served what is queued."""
        self.session.ask("end_after_calls", self.actor_id)


class NestedSession:
    """The session in an actor's or a worker's process. Any of its threads may use it."""

    foreign = False
    closed = False
    where = "in the driver"

    def __init__(self, mailbox: Mailbox, doorbell: Doorbell, waiter: Waiter) -> None:
        """Use the session.

        Args:
            mailbox: How to talk to the driver.
            doorbell: This process's doorbell.
            waiter: The main thread's waiting policy.
        """
        self._mailbox = mailbox
        mailbox.receive_outcome = self._receive
        mailbox.find = self.find
        self._doorbell = doorbell
        self._main = waiter
        self._local = threading.local()
        self._live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._arrivals: dict[int, int] = {}
        self._gone: deque[tuple[int, int]] = deque()
        self._wanted: set[int] = set()
        self._asked: dict[int, Answer | None] = {}
        self._questions = itertools.count(1)
        self.owner_pid = os.getpid()
        self.in_task = False
        """Whether the main thread runs a task, whose CPUs others may use while it waits."""

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

    # --- references

    def find(self, number: int) -> Any:
        """Return the reference with this number, which has just arrived once more."""
        ref = self._live.get(number)
        if ref is None:
            if number < 0:
                ref = Lifeline(-number, self, lambda actor_id: self.gone(-actor_id))
            else:
                ref = _HeldRef("an object", self, number)
            self._live[number] = ref
        self._arrivals[number] = self._arrivals.get(number, 0) + 1
        return ref

    def new_refs(self, what: str, count: int) -> tuple[ObjectRef, ...]:
        """Make references for results that are about to be asked for."""
        return tuple([self._new_ref(what) for _ in range(count)])

    def _new_ref(self, what: str) -> ObjectRef:
        ref = _HeldRef(what, self, next_reference())
        self._live[ref.number] = ref
        self._arrivals[ref.number] = 1
        return ref

    def gone(self, number: int) -> None:
        """Note that the last copy of a reference here is gone. Safe at any moment."""
        count = self._arrivals.pop(number, 0)
        if count:
            self._gone.append((number, count))
            self._wanted.discard(number)

    def pin(self, reference: Any) -> None:
        """Keep a reference that the user pickled on their own for as long as the session lives."""
        self.ask("pin", reference.number)

    def find_stray(self, number: int) -> Any:
        """Return a reference that was pickled by the user."""
        found = self._live.get(number)
        if found is None:
            self.ask("lend", number)
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

    def _receive(self, message: Resolved | Answer) -> None:
        if isinstance(message, Answer):
            if message.number in self._asked:
                self._asked[message.number] = message
            return
        ref = self._live.get(message.number)
        if ref is None or ref.done:
            return
        if message.error:
            ref.fail(pickle.loads(message.error))
        else:
            ref.complete(message.parcels[0])

    def attend(self) -> Mailbox:
        """Let the calling thread read what arrives."""
        return self._mailbox

    def bring(self, refs: Sequence[ObjectRef], *, blocks: bool = False) -> None:
        """Ask for outcomes that have not been asked for."""
        numbers = [ref.number for ref in refs if not ref.done and ref.number not in self._wanted]
        self._wanted.update(numbers)
        if numbers or blocks:
            self.send(Want(numbers=numbers, blocks=blocks))

    @contextlib.contextmanager
    def expecting(self, refs: Sequence[ObjectRef]) -> Iterator[None]:
        """Have outcomes brought while the caller waits."""
        self.report_gone()
        blocks = self.in_task and threading.current_thread() is threading.main_thread()
        self.bring(refs, blocks=blocks)
        try:
            yield
        finally:
            if blocks:
                self.send(GoesOn())

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
        if self._mailbox.closed:
            raise RuntimeError("the session has ended (runtime.shutdown)")

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Return the values of `refs`."""
        return get_all(self, refs, timeout)

    # --- what it can be asked

    def send(self, message: Any) -> None:
        """Send a message to the driver."""
        self.check_owner()
        self._mailbox.send(message)

    def ask(self, what: str, *args: Any, parcels: Sequence[Parcel] = ()) -> Any:
        """Ask the driver and wait for the answer; raises what answering raised."""
        number = next(self._questions)
        self._asked[number] = None
        try:
            self.send(Ask(number, pickle.dumps((what, args), 5), parcels))
            self.wait_until(lambda: self._asked[number] is not None, None)
        finally:
            answer = self._asked.pop(number)
        assert answer is not None
        value = pickle.loads(answer.data)
        if answer.failed:
            raise value
        return value

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

    def submit_task(
        self, function: int, options: TaskOptions, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[ObjectRef, ...]:
        """Run a task."""
        parcel, needed = pack_arguments(args, kwargs)
        count = options.num_returns
        refs = self.new_refs(options.name or "a task", 1 if count in (None, STREAM) else int(count))
        request = TaskRequest(function, options, _numbers(refs), _numbers(needed))
        self.send(Submit(0, pickle.dumps(request, 5), (parcel,)))
        return refs

    def next_item(self, end: ObjectRef, position: int) -> ObjectRef | None:
        """Wait for an item of a stream; None at its end."""
        with self.expecting(()):
            number = self.ask("next_item", end.number, position)
        return None if number is None else self.find(number)

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

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel what makes a reference's value."""
        self.ask("cancel", ref.number, force, recursive)


def _numbers(refs: Sequence[ObjectRef]) -> list[int]:
    return [ref.number for ref in refs]
