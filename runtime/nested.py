"""The session as an actor or a task sees it: every object and actor has its home in the driver.

Submitting waits for nobody: the sender numbers the results itself. Outcomes come when asked for.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import ExecutorError
from compiled_dag.shm.waiter import Waiter
from runtime import context
from runtime.asking import Asking
from runtime.bringing import Bringing
from runtime.held import Held
from runtime.messages import (
    Answer,
    AnswerWith,
    Died,
    GoesOn,
    Release,
    Resolved,
    Want,
)
from runtime.nested_host import NestedHost
from runtime.nested_requests import NestedRequests
from runtime.remote_actor import RemoteActor
from runtime.waiting import get_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compiled_dag.shm.board import Board, Doorbell
    from runtime.group_home import RemoteHome
    from runtime.mailbox import Mailbox
    from runtime.objects import Lifeline, ObjectRef
    from runtime.parcel import Parcel


class NestedSession(NestedRequests):
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
        self.held = Held(self)
        """The references here."""
        self.find = mailbox.find = self.held.find
        self._doorbell = doorbell
        self._main = waiter
        self._local = threading.local()
        self._bringing = Bringing(self.wait_until)
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

    def new_refs(self, what: str, count: int) -> tuple[ObjectRef, ...]:
        """Make references for results that are about to be asked for."""
        return tuple([self.held.new(what) for _ in range(count)])

    def pin(self, reference: Any) -> None:
        """Keep a reference that the user pickled on their own for as long as the session lives."""
        self.ask("pin", reference.number)

    def lend(self, reference: Any) -> None:
        """Let others find a reference for as long as it lives here."""
        number = reference.number
        self.held.lend(number, lambda: self.ask("lend", number))

    def find_stray(self, number: int) -> Any:
        """Return a reference that was pickled by the user."""
        found = self.held.living(number)
        if found is None:
            self.ask("borrow", number)
            found = self.find(number)
        return found

    def adopt(self, lifeline: Lifeline, class_name: str) -> Lifeline:
        """Give a lifeline that arrived what its handles need."""
        if lifeline.owner is self:
            lifeline.owner = RemoteActor(self, lifeline.actor_id, class_name)
        return lifeline

    def gone(self) -> Release | None:
        """Return what tells the driver which references are gone here; None if none are."""
        return Release(counts=self.held.take_gone()) if self.held.gone else None

    def report_gone(self) -> None:
        """Tell the driver which references are gone here."""
        gone = self.gone()
        if gone is not None:
            self._mailbox.send(gone)

    # --- outcomes

    def _receive(self, message: Resolved | Answer | AnswerWith | Died) -> None:
        if isinstance(message, Died):
            self.host.has_died(message)
            return
        if isinstance(message, (Answer, AnswerWith)):
            self.asking.take(message)
            return
        ref = self.held.living(message.number)
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
        self._bringing.add(refs)

    def _want(self, refs: Sequence[ObjectRef], *, blocks: bool, waits: bool = False) -> None:
        numbers = self.held.want(refs)
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


def _loaded(error: bytes) -> BaseException:
    """Return an exception that the driver has pickled."""
    try:
        found: BaseException = pickle.loads(error)
    except Exception as cause:  # noqa: BLE001  part of it may be of a class that only the driver has
        return ExecutorError(f"a call failed, and its error cannot be rebuilt here: {cause!r}")
    return found
