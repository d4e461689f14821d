"""A process's end of its control socket: whoever waits reads, everybody may send.

What is for the main loop (calls, system functions) is kept for it; answers and outcomes go to those
who asked. Several threads may wait at once: each looks at the count on the board, and the first one
to see news reads for all and wakes the others.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.shm.board import AWAITED, AWAITED_AT, SENT
from runtime import wire
from runtime.messages import Answer, AnswerWith, Call, Cancel, Died, Resolved

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from compiled_dag.shm.board import Board
    from runtime.interruption import Interruption
    from runtime.messages import Message

STOP_AT_ONCE: Final = 1 << 63
"""Count on the board that ends the process before the messages it has not served yet."""
_DRIVER: Final = 0
"""The driver's line on the board."""


class Mailbox:
    """The control socket of this process; owns it."""

    def __init__(
        self, control: socket.socket, board: Board, line: int, shield: Interruption
    ) -> None:
        """Open the mailbox.

        Args:
            control: The socket.
            board: The session's board.
            line: This process's line on it.
            shield: Keeps a message whole while the main thread sends or receives it.
        """
        self.messages: deque[Any] = deque()
        """For the main loop."""
        self.receive_outcome: Callable[[Resolved | Answer | AnswerWith | Died], None] | None = None
        """Takes the answers to what this process asked, and deaths it wants to hear of."""
        self.find: Callable[[int], Any] | None = None
        """Returns a reference that arrives, by number."""
        self.receive_cancel: Callable[[int], None] | None = None
        """Takes the numbers of calls that are not to run."""
        self._control = control
        self._shield = shield
        self._inbox = wire.Inbox(control, self._find)
        self._board = board
        self._line = line
        self._count = board.mailbox_index(line)
        self._awaited = board.word_index(line, AWAITED)
        self._awaited_at = board.word_index(line, AWAITED_AT)
        self._sent = board.word_index(line, SENT)
        self._read = -1
        """The count of what the driver has sent when nothing was left to read."""
        self._fresh: deque[Any] = deque()
        self._receiving = threading.Lock()
        self._sending = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether the driver has closed its side."""
        return self._inbox.closed

    @property
    def stopped(self) -> bool:
        """Whether the process is to end at once."""
        return bool(self._board.words[self._count] == STOP_AT_ONCE)

    @property
    def all_read(self) -> bool:
        """Whether all that the driver has counted has been taken, into `messages` what is there."""
        return bool(self._board.words[self._count] == self._read)

    def pump(self) -> None:
        """Take what has arrived, unless another thread is at it."""
        while not self.all_read:
            with self._shield:  # around the lock, too: whoever is interrupted must not keep it
                if not self._receiving.acquire(blocking=False):
                    return
                try:
                    self._receive()
                finally:
                    self._receiving.release()
            self._board.ring(self._line)

    def receive(self) -> bool:
        """Take some of what has arrived, whatever the count says; returns whether anything had."""
        with self._shield, self._receiving:
            found = self._receive()
        if found:
            self._board.ring(self._line)  # a waiting thread may have found the lock taken
        return found

    def _receive(self) -> bool:
        """Do that, with the lock held."""
        count = self._board.words[self._count]  # before the read: what is counted later is news
        found = self._inbox.receive(self._fresh)
        self._route_all()
        if self._inbox.emptied:
            self._read = count  # last: who sees it need not look at the socket
        return found

    def _route_all(self) -> None:
        fresh = self._fresh
        while fresh:
            self._route(fresh.popleft())

    def _route(self, message: Any) -> None:
        kind = message.__class__
        if kind is Call:
            self.messages.append(message)
        elif kind in (Resolved, Answer, AnswerWith, Died) and self.receive_outcome is not None:
            self.receive_outcome(message)
        elif kind is Cancel and self.receive_cancel is not None:
            self.receive_cancel(message.number)
        else:
            self.messages.append(message)

    def _find(self, number: int) -> Any:
        assert self.find is not None
        return self.find(number)

    def leave(self) -> None:
        """Stop attending: nothing to do, all threads look for themselves."""

    def send(self, message: Message, first: Message | None = None) -> None:
        """Send to the driver, waiting for room; `first`, if there is one, without descriptors.

        Raises:
            OSError: The driver has closed the session.
        """
        with self._shield, self._sending:
            data, fds = wire.pack(message)
            if first is not None:
                data = wire.pack(first)[0] + data
            self._send(data, fds)
        self._board.ring(_DRIVER)

    def _send(self, data: memoryview | bytes, fds: Sequence[int]) -> None:
        """Send, and count it: as begun first where it may be too long for the socket."""
        words, sent = self._board.words, self._sent
        if not fds:
            try:
                done = wire.send_some(self._control, data, ())
            except BlockingIOError:
                done = 0
            if done == len(data):
                words[sent] += 2
                return
            data = memoryview(data)[done:]
        words[sent] += 1
        self._board.ring(_DRIVER)  # it has to be read before it is whole
        wire.send_all(self._control, data, fds)
        words[sent] += 1

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for news on."""
        return self._control.fileno()

    def note_wait(self, number: int) -> None:
        """Show the driver which reference the main thread waits for; 0: none."""
        words = self._board.words
        if number:
            words[self._awaited_at] = time.monotonic_ns()
        words[self._awaited] = number

    def close(self) -> None:
        """Close the socket."""
        self._inbox.close()
        self._control.close()
