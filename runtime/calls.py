"""The calls of one actor: queued, sent, answered, failed.

The queue holds calls back until the process exists, and while a reference among their arguments is
not ready; then all later calls of the actor wait behind it, because calls run in the order they
were made.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import TaskCancelledError
from compiled_dag.interrupts import whole
from runtime import obituary
from runtime.messages import Call, Reply, Stop, System, SystemReply
from runtime.objects import ObjectRef
from runtime.pending import (
    CREATION,
    Repeatable,
    check_room,
    fail_entry,
    number_of,
    refs_of,
    sort_lost,
    what_of,
)
from runtime.stream import StreamEnd
from runtime.system_call import SystemCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.errors import ActorDiedError, ActorError, ActorUnavailableError
    from runtime.link import Link
    from runtime.messages import Item, Retry
    from runtime.parcel import Parcel
    from runtime.pending import Entry

_NOWHERE: Final[Any] = None
"""Source of a reference that nobody gets: the constructor's, the second time."""

_numbers = itertools.count(1)


def next_number() -> int:
    """Return a number for a call or a system function, never given before."""
    return next(_numbers)


class Calls:
    """What an actor has been asked and has not answered. Any thread may use it."""

    def __init__(
        self,
        creation_failed: Callable[[ObjectRef], None],
        *,
        most_pending: int = -1,
        attempts: int = 0,
        restarts: bool = False,
    ) -> None:
        """Make an empty queue.

        Args:
            creation_failed: Called, without a lock, with the failed reference that is the reason
                why the actor has no instance.
            most_pending: How many calls may be unanswered; negative: any number.
            attempts: How often a call that does not say so itself is made again after a death.
            restarts: Whether the actor may be made again.
        """
        self._most_pending = most_pending
        self._attempts = attempts
        self._restarts = restarts
        self._creation: tuple[Call, Sequence[ObjectRef]] | None = None
        self._unavailable: ActorUnavailableError | None = None
        """What calls without another attempt get while the actor is being made again."""
        self.link: Link | None = None
        self.death: ActorDiedError | None = None
        self._creation_failed = creation_failed
        self._lock = threading.Lock()
        self._open = False
        """Whether messages may be sent: the process exists."""
        self._created = False
        """Whether the constructor's call has been sent."""
        self._queue: deque[tuple[Call, Sequence[ObjectRef]] | System | Stop] = deque()
        self._pending: dict[int, Entry] = {}

    # --- in

    def add(
        self,
        call: Call,
        needed: Sequence[ObjectRef],
        refs: tuple[ObjectRef, ...],
        retry: Retry | None = None,
    ) -> None:
        """Send a call whose results go to `refs`, once the references it needs are ready.

        Raises:
            PendingCallsLimitError: Too many are unanswered.
        """
        number = call.number
        entry: tuple[ObjectRef, ...] | Repeatable = refs
        if number == CREATION:
            self._creation = (call, needed) if self._restarts else None
        elif self._attempts or retry is not None:
            entry = self._entry(call, needed, refs, retry)
        with self._lock:
            death: ActorError | None = self.death
            if death is None and entry is refs and number != CREATION:
                death = self._unavailable
            if death is None:
                if self._most_pending >= 0 and number != CREATION:
                    check_room(self._pending, self._most_pending)
                self._pending[number] = entry
                if self._open and not needed and not self._queue and self.link is not None:
                    self._created = True
                    self.link.send(self.link.spares.lend_to(call, what_of(refs)))
                    return
                self._queue.append((call, needed))
        if death is not None:
            for ref in refs:
                ref.fail(obituary.of_call(ref.what, death))
            return
        for ref in needed:
            ref.when_done(self.advance)
        self.advance()

    def _entry(
        self,
        call: Call,
        needed: Sequence[ObjectRef],
        refs: tuple[ObjectRef, ...],
        retry: Retry | None,
    ) -> tuple[ObjectRef, ...] | Repeatable:
        attempts = self._attempts
        if retry is not None and retry.attempts is not None:
            attempts = retry.attempts
        if not attempts:
            return refs
        exceptions = False if retry is None else retry.exceptions
        return Repeatable(call, needed, refs, attempts, exceptions)

    @whole
    def submit(self, message: System, call: SystemCall) -> None:
        """Send a function of this project's own; it waits behind the constructor only."""
        with self._lock:
            death = self.death
            if death is None:
                self._pending[message.number] = call
                if self._created and self.link is not None:
                    self.link.send(message)
                else:
                    fds = [os.dup(fd) for fd in message.fds]
                    self._queue.append(message._replace(fds=fds))
        if death is not None:
            call.fail(death)

    @whole
    def end(self) -> None:
        """Have the actor end after what is queued."""
        with self._lock:
            if self.death is None:
                self._queue.append(Stop())
        self.advance()

    # --- out

    def connect(self, link: Link | None) -> None:
        """Use `link` from now on, not before `open`."""
        with self._lock:
            self._open = False
            self.link = link

    def open(self) -> None:
        """Start sending: the process exists."""
        with self._lock:
            self._open = self.death is None
        self.advance()

    def advance(self) -> None:
        """Send what is queued, up to the first call that must wait for a reference."""
        while True:
            with self._lock:
                if not self._open or not self._queue:
                    return
                skipped = self._send_first()
            if skipped is None:
                return
            self._skip(*skipped)

    def _send_first(self) -> tuple[Call, tuple[ObjectRef, ...], ObjectRef] | None:
        """Send from the head of the queue until one must wait (None) or must not run (that)."""
        assert self.link is not None
        while self._queue:
            entry = self._queue[0]
            if isinstance(entry, (Stop, System)):
                self._queue.popleft()
                self.link.send(entry)
                _close_all(entry)
                continue
            call, needed = entry
            if not all(ref.done for ref in needed):
                return None
            self._queue.popleft()
            failed = next((ref for ref in needed if ref.failed), None)
            if failed is not None:
                return call, refs_of(self._pending.pop(call.number)), failed
            self._created = True
            call = call._replace(parcels=[*call.parcels, *map(_parcel, needed)])
            what = what_of(self._pending.get(call.number))
            self.link.send(self.link.spares.lend_to(call, what))
        return None

    def _skip(self, call: Call, refs: tuple[ObjectRef, ...], failed: ObjectRef) -> None:
        """Let a call end as the reference it depends on did, without running it."""
        if call.number == CREATION:
            self._creation_failed(failed)
        for ref in refs:
            ref.follow(failed)

    def flush(self) -> None:
        """Go on sending what the socket did not take."""
        with self._lock:
            if self.link is not None:
                self.link.flush()

    def post(self, message: Any) -> None:
        """Send a message that is no call, at once."""
        with self._lock:
            if self.link is not None:
                self.link.send(message)

    def unanswered(self) -> list[tuple[int, str, bool]]:
        """Return number and name of each call without an answer, and whether it was sent."""
        with self._lock:
            queued = {entry[0].number for entry in self._queue if entry.__class__ is tuple}  # type: ignore[union-attr]
            return [
                (number, refs_of(entry)[0].what, number not in queued)
                for number, entry in list(self._pending.items())
                if not isinstance(entry, SystemCall) and refs_of(entry)
            ]

    def name_of(self, number: int) -> str:
        """Return the name of a call that was sent and is not answered; empty if it is none."""
        entry = self._pending.get(number)
        if (
            entry is None
            or isinstance(entry, SystemCall)
            or (number == CREATION and not self._created)
        ):
            return ""
        refs = refs_of(entry)
        return refs[0].what if refs else "a call"

    def makes(self, number: int, ref: ObjectRef) -> bool:
        """Tell whether call `number` makes `ref`."""
        entry = self._pending.get(number)
        return entry is not None and not isinstance(entry, SystemCall) and ref in refs_of(entry)

    def notice(self, message: Any) -> None:
        """Take note of what only workers say of themselves."""

    def running_name(self) -> str:
        """See `PoolWorker.running_name`: an actor's output has the actor's name."""
        return ""

    def stop_at_once(self, word: int) -> None:
        """Have the actor end without serving what it has been sent."""
        with self._lock:
            if self.link is not None:
                self.link.stop_at_once(word)

    # --- back

    def answer(self, message: Reply | SystemReply) -> None:
        """Hand a reply to whom it is for."""
        # Without the lock: dict.pop is atomic, and only one thread gets the entry.
        entry = self._pending.pop(message.number, None)
        if isinstance(message, SystemReply):
            if isinstance(entry, SystemCall):
                entry.finish(failed=message.failed, data=message.data)
            return
        parcels = message.parcels
        link = self.link
        if link is not None:
            link.spares.settle(message.number, what_of(entry), parcels)
        if isinstance(entry, tuple) and len(entry) == len(parcels) == 1 and message.number:
            entry[0].complete(parcels[0])  # almost all calls
            return
        failed = len(parcels) == 1 and parcels[0].is_error
        if failed and isinstance(entry, Repeatable) and entry.may_follow(parcels[0]):
            self._repeat(entry)
            return
        refs = refs_of(entry)
        if message.number == CREATION and refs:
            if failed:
                refs[0].complete(parcels[0])
                self._creation_failed(refs[0])
                return
            self._unavailable = None
        for index, ref in enumerate(refs):
            ref.complete(parcels[0 if failed else index])

    def yielded(self, item: Item) -> None:
        """Hand an item to its stream."""
        entry = self._pending.get(item.number)
        if entry is not None and not isinstance(entry, SystemCall):
            for ref in refs_of(entry):
                if isinstance(ref, StreamEnd):
                    ref.add(int.from_bytes(item.position, "little"), item.parcels[0])

    def cancel(self, ref: ObjectRef) -> int | None:
        """Cancel the call that makes `ref`: here, if it was not sent; else returns its number."""
        with self._lock:
            number = number_of(self._pending, ref)
            if number is None:
                return None
            for queued in self._queue:
                if queued.__class__ is tuple and queued[0].number == number:  # type: ignore[union-attr]
                    self._queue.remove(queued)
                    refs = refs_of(self._pending.pop(number))
                    break
            else:
                entry = self._pending.get(number)  # None: it has been answered just now
                if isinstance(entry, Repeatable):
                    entry.attempts = 0
                return number
        for one in refs:
            one.fail(TaskCancelledError(f"{one.what} was cancelled before it ran"))
        return None

    def _repeat(self, entry: Repeatable) -> None:
        with self._lock:
            if self.death is None:
                self._pending[entry.call.number] = entry
                self._queue.append((entry.call, entry.needed))
        self.advance()

    def are_left(self) -> bool:
        """Tell whether any would run after a restart: not sent yet, or to be made again."""
        with self._lock:
            return any(entry.__class__ is tuple for entry in self._queue) or any(
                isinstance(entry, Repeatable) and entry.attempts for entry in self._pending.values()
            )

    def restart(self, error: ActorUnavailableError) -> None:
        """Begin again with another process: the constructor, then what may be called again.

        Calls that were sent and may not be called again, and such that come before the actor is
        back, get `error`.
        """
        assert self._creation is not None
        with self._lock:
            self._open = self._created = False
            self._unavailable = error
            unsent = {
                queued[0].number for queued in self._queue if isinstance(queued, tuple)
                and not isinstance(queued, System)
            }  # fmt: skip
            again, numbers = sort_lost(self._pending, unsent)
            over = [self._pending.pop(number) for number in numbers]
            self._queue.extendleft((entry.call, entry.needed) for entry in again)
            self._queue.appendleft(self._creation)
            self._pending[CREATION] = self._pending.get(CREATION) or (ObjectRef("", _NOWHERE),)
        for entry in over:
            fail_entry(entry, error, lambda _: error)

    def fail(self, death: ActorDiedError) -> bool:
        """Fail everything that is pending, and what comes; False if that has happened before."""
        with self._lock:
            if self.death is not None:
                return False
            self.death = death
            self._open = False
            pending = list(self._pending.values())
            self._pending.clear()
            for queued in self._queue:
                _close_all(queued)
            self._queue.clear()
        for entry in pending:
            fail_entry(entry, death, lambda what: obituary.of_call(what, death))
        return True


def _close_all(queued: object) -> None:
    """Close the descriptors of a queued message: duplicates of the submitter's."""
    if isinstance(queued, System):
        for fd in queued.fds:
            os.close(fd)


def _parcel(ref: ObjectRef) -> Parcel:
    assert ref.parcel is not None
    return ref.parcel
