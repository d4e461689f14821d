"""Calls that an actor runs elsewhere than on its main thread: their way out of the mailbox.

The main thread reads an actor's socket, but not in a step of a graph: a call that arrives then
would wait for the step's end although something could run it. So such an actor has a second reader
from its first graph on. It waits for the socket, not for the doorbell, on which every message of
every graph would wake it.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

from runtime.messages import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.mailbox import Mailbox


class Reception:
    """Takes calls out of a mailbox, in their order."""

    def __init__(self, mailbox: Mailbox, hand_over: Callable[[Call], None]) -> None:
        """Take nothing yet.

        Args:
            mailbox: The process's; what is no call stays there for the main thread.
            hand_over: Takes a call, and does not wait for it.
        """
        self._mail = mailbox
        self._hand_over = hand_over
        self._handing_over = threading.Lock()
        self._thread: threading.Thread | None = None

    def hand_over_first(self) -> bool:
        """Hand over the calls that are first in the mailbox; any thread may use it.

        Returns:
            Whether the main thread has to look again: there was one, or nothing is left.
        """
        messages, found = self._mail.messages, False
        with self._handing_over:
            while messages and messages[0].__class__ is Call:
                self._hand_over(messages.popleft())
                found = True
            return found or not messages

    def attend(self) -> None:
        """Read on a thread, too, until the driver has closed its side. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reception", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        mail = self._mail
        news = select.poll()
        news.register(mail.fileno(), select.POLLIN)
        while not (mail.closed or mail.stopped):
            news.poll()
            while mail.receive():
                pass
            self.hand_over_first()
