"""Calls that arrive while the main thread is in a step of a graph, at an actor that runs them elsewhere.

The main thread reads an actor's socket. In a step it does not, and a call to an actor with several
threads, or an event loop, would wait for the step's end although something could run it. So such an
actor has a second reader from its first graph on. It waits for the socket, not for the doorbell, on
which it would be woken by every message of every graph.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.mailbox import Mailbox


def start_reception(mailbox: Mailbox, hand_over: Callable[[], object]) -> threading.Thread:
    """Read on a thread of its own until the driver has closed its side; ends with the process.

    Args:
        mailbox: The process's; what is not a call stays there for the main thread.
        hand_over: Called when something has come.
    """
    thread = threading.Thread(
        target=_receive, args=(mailbox, hand_over), name="reception", daemon=True
    )
    thread.start()
    return thread


def _receive(mailbox: Mailbox, hand_over: Callable[[], object]) -> None:
    news = select.poll()
    news.register(mailbox.fileno(), select.POLLIN)
    while not (mailbox.closed or mailbox.stopped):
        news.poll()
        while mailbox.receive():
            pass
        hand_over()
