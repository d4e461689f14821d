"""The driver's end of a control socket: no wait is left asleep."""

from __future__ import annotations

import socket

from runtime import wire
from runtime.link import Link
from runtime.messages import Reply
from runtime.parcel import Parcel
from runtime.supervisor import READABLE


class Bells:
    """A board that notes whether anybody was reading when it rang."""

    def __init__(self):
        self.link = None
        self.rung = []

    def ring(self, process):
        self.rung.append(self.link._reading.locked())


class Nobody:
    """A supervisor that never calls back."""

    def watch(self, fd, handler):
        pass

    def change(self, fd, events):
        pass

    def forget(self, fd):
        pass


def test_who_could_not_look_is_woken_when_the_other_has_read():
    ours, theirs = socket.socketpair()
    bells = Bells()
    with ours, theirs:
        link = bells.link = Link(
            ours,
            bells,
            1,
            Nobody(),
            receiver=lambda _: link.pump(),  # what a thread does that waits meanwhile
            find=lambda _: None,
            lend=lambda _: None,
            flusher=lambda: None,
            breaker=lambda _: None,
        )
        wire.send(theirs, Reply(1, [Parcel.of(1)]))
        link._on_event(READABLE)
        link.close()
    assert bells.rung[-1] is False
