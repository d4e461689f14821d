"""A process's end of its control socket: no wait is left asleep."""

from __future__ import annotations

import contextlib
import socket

from runtime import wire
from runtime.mailbox import Mailbox
from runtime.messages import Resolved
from runtime.parcel import Parcel


class Bells:
    """A board that notes whether anybody was reading when it rang."""

    def __init__(self):
        self.mailbox = None
        self.words = [0] * 100
        self.rung = []

    def mailbox_index(self, line):
        return line

    def word_index(self, line, word):
        return line + word

    def ring(self, line):
        self.rung.append((line, self.mailbox._receiving.locked()))


def test_what_the_main_loop_receives_for_another_thread_wakes_it():
    ours, theirs = socket.socketpair()
    bells = Bells()
    arrived = []
    with ours, theirs:
        mailbox = bells.mailbox = Mailbox(ours, bells, 3, contextlib.nullcontext())
        mailbox.receive_outcome = arrived.append
        wire.send(theirs, Resolved(1, b"", [Parcel.of(1)]))
        assert mailbox.receive()
        mailbox.close()
    assert len(arrived) == 1
    assert bells.rung[-1] == (3, False)
