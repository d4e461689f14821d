"""The driver's end of one actor's control socket.

Sending never waits: what does not fit goes to an outbox that the supervising thread empties. So a
driver whose actor is busy cannot end up waiting for an actor that waits for the driver.

Replies are read by the supervising thread, or by a thread that waits for one (`attend`): that
saves the detour over a second thread, which would cost more than all the rest of a call.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.shm.board import SENT
from runtime import wire
from runtime.messages import Call, Resolved
from runtime.spare import Spares
from runtime.supervisor import READABLE, WRITABLE, Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from compiled_dag.shm.board import Board
    from runtime.messages import Message
    from runtime.parcel import Parcel
    from runtime.warm import WarmMemory

_MOST_SENT_ALONG: Final = 8
_SENT_ALONG_BYTES: Final = 16 * 1024


class Link:
    """One connection; the caller of `send` and `flush` holds the actor's lock."""

    def __init__(
        self,
        sock: socket.socket,
        board: Board,
        line: int,
        supervisor: Supervisor,
        *,
        receiver: Callable[[Any], None],
        find: Callable[[int], Any],
        lend: Callable[[Sequence[Any]], list[Any]],
        lend_memory: Callable[[Parcel], None],
        memory: WarmMemory,
        flusher: Callable[[], None],
        breaker: Callable[[OSError], None],
    ) -> None:
        """Connect; owns `sock`.

        Args:
            sock: The driver's end.
            board: Where the actor is told that something was sent.
            line: The actor's line there.
            supervisor: Reads unless somebody attends.
            receiver: Handles one message.
            find: Returns a reference that the process has, by number.
            lend: Takes note of references that are sent to it; returns those that are new to it.
            lend_memory: Takes note of a large argument that is sent to it.
            memory: Where memory for its results comes from.
            flusher: Calls `flush`, with the actor's lock held.
            breaker: Handles that messages cannot be received any more.
        """
        self._sock = sock
        self._board = board
        self._line = line
        self._words = board.words
        self._sent = board.word_index(line, SENT)
        self._seen = -1
        """The count of what the process has sent when nothing was left to read."""
        self._supervisor = supervisor
        self._flusher = flusher
        self._breaker = breaker
        self._lend, self._lend_memory = lend, lend_memory
        self.spares = Spares(memory)
        """Memory that it was lent for results."""
        self._inbox = wire.Inbox(sock, find, self.spares.use)
        self._reading = threading.Lock()
        self._missed = False
        """Whether a thread that waits could not look because another one was reading."""
        self._messages = _AtOnce(receiver)
        self._outbox: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._count = 0
        self._stopped = False
        self._attending = 0
        self._watched = threading.Lock()
        self._closed = False
        supervisor.watch(sock.fileno(), self._on_event)

    # --- out

    def send(self, message: Message) -> None:
        """Send `message` now if the socket takes it, else from the supervising thread."""
        if self._closed:
            return  # the actor is dead; its death settles what was pending
        is_call = message.__class__ is Call
        parcels: Sequence[Parcel] = getattr(message, "parcels", ())
        fresh: list[Any] = []
        if len(parcels) != 1 or not parcels[0].is_plain:
            fresh = self._note(parcels, lent=is_call)
        data, fds = wire.pack(message)
        if self._outbox:
            self._outbox.append((memoryview(data), tuple(os.dup(fd) for fd in fds)))
            return
        sent = 0
        try:
            sent = wire.send_some(self._sock, data, fds)
            while fds and (fds := wire.left_fds(fds)):
                sent += wire.send_some(self._sock, memoryview(data)[sent:], fds)
        except BlockingIOError:
            pass  # the supervising thread sends the rest
        except OSError:
            return  # dead, see above
        if sent < len(data):
            self._outbox.append((memoryview(data)[sent:], tuple(os.dup(fd) for fd in fds)))
            self._update()
        self._post()
        if fresh and is_call:
            self._send_along(fresh)

    def _note(self, parcels: Sequence[Parcel], *, lent: bool) -> list[Any]:
        """Note what of a message's values the process sees; returns the references new to it.

        Args:
            parcels: The values.
            lent: Whether it has no references of them: they are arguments.
        """
        fresh: list[Any] = []
        for parcel in parcels:
            if parcel.fd >= 0 and lent:
                self._lend_memory(parcel)
            if parcel.references:
                fresh += self._lend(parcel.references)
        return fresh

    def _send_along(self, references: Sequence[Any]) -> None:
        """Send values that are known, small or in memory of their own: nobody need ask for them.

        That saves two of the four trips of a call that gets a reference it was given in a list.
        """
        for ref in references[:_MOST_SENT_ALONG]:
            parcel = getattr(ref, "parcel", None)  # an actor's lifeline has none
            if parcel is not None and (parcel.fd >= 0 or parcel.size <= _SENT_ALONG_BYTES):
                self.send(Resolved(ref.number, b"", (parcel,)))

    def flush(self) -> None:
        """Send what the outbox holds as far as it fits."""
        if self._closed:
            return
        try:
            while self._outbox:
                data, fds = self._outbox[0]
                left = data[wire.send_some(self._sock, data, fds) :]
                more = tuple(wire.left_fds(fds))
                _close_all(fds[: len(fds) - len(more)])
                if not left:
                    self._outbox.popleft()
                    continue
                self._outbox[0] = (left, more)
                if not more:
                    break
        except BlockingIOError:
            pass  # epoll says when there is room
        except OSError:
            return  # the actor is dead
        self._update()
        self._post()

    def _post(self) -> None:
        if not self._stopped:
            self._count += 1
            self._board.post(self._line, self._count)

    def stop_at_once(self, word: int) -> None:
        """Have the actor end without serving what it has been sent: nothing overwrites `word`."""
        self._stopped = True
        self._board.post(self._line, word)

    # --- in

    def pump(self) -> None:
        """Handle the replies that are there, unless another thread is at it."""
        if self._words[self._sent] == self._seen:
            return
        if self._reading.acquire(blocking=False) or self._leave_to_reader():
            try:
                self._receive()
            finally:
                self._release()

    def _leave_to_reader(self) -> bool:
        """Have the thread that reads ring when it has done so; True if it has: then read yourself.

        It may have looked before the message came that the caller waits for, and whoever sent that
        message rang before the caller slept.
        """
        self._missed = True
        return self._reading.acquire(blocking=False)

    def _release(self) -> None:
        self._reading.release()
        if self._missed:
            self._missed = False
            self._board.ring(0)

    def drain(self) -> None:
        """Handle every reply that has been sent."""
        self._reading.acquire()
        try:
            while self._receive():
                pass
        finally:
            self._release()

    def _receive(self) -> bool:
        messages = self._messages
        sent = self._words[self._sent]  # before the read: nothing that is sent later is missed
        try:
            found = self._inbox.receive(messages)
        except OSError as error:
            self._breaker(error)
            return False
        if self._inbox.emptied and not sent & 1:
            self._seen = sent
        if found:
            self._board.ring(0)
        messages.raise_first()
        return found

    # --- who reads

    def attend(self) -> None:
        """Announce that this thread reads (by `pump`) until `leave`."""
        with self._watched:
            self._attending += 1
            self._watch(self._supervisor.change)

    def leave(self) -> None:
        """Hand reading back to the supervising thread, which need not begin at once."""
        with self._watched:
            self._attending -= 1
            self._watch(self._supervisor.change_late)

    def _update(self) -> None:
        with self._watched:
            self._watch(self._supervisor.change)

    def _watch(self, change: Callable[[int, int], None]) -> None:
        if not self._closed and not self._inbox.closed:
            events = 0 if self._attending else READABLE
            if self._outbox:
                events |= WRITABLE
            change(self._sock.fileno(), events)

    def _on_event(self, events: int) -> None:
        if events & WRITABLE:
            self._flusher()
        if events & ~WRITABLE:
            self._reading.acquire()
            try:
                self._receive()
            finally:
                self._release()
            if self._inbox.closed or not events & READABLE:
                # The peer is gone; how the process ended is known from its pidfd.
                self._supervisor.forget(self._sock.fileno())

    def close(self) -> None:
        """Close everything. Idempotent."""
        with self._watched:
            if self._closed:
                return
            self._closed = True
            self._supervisor.forget(self._sock.fileno())
        self.spares.close()
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close the descriptors only; in a forked child."""
        self._closed = True
        self.spares.abandon()
        for _, fds in self._outbox:
            _close_all(fds)
        self._outbox.clear()
        self._inbox.close()
        self._sock.close()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class _AtOnce(deque[Any]):
    """Has each message handled before the next is unpacked, which may hold what the first makes."""

    def __init__(self, receiver: Callable[[Any], None]) -> None:
        super().__init__()
        self._receiver = receiver
        self._failure: BaseException | None = None

    def append(self, message: Any) -> None:
        """Handle a message; what that raises is kept until all have been."""
        try:
            self._receiver(message)
        except BaseException as error:  # noqa: BLE001  the rest of what arrived must be split
            self._failure = self._failure or error

    def raise_first(self) -> None:
        """Raise what the first failure was, if there was one."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
