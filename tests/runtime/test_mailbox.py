"""A process's end of its control socket: no wait is left asleep."""

from __future__ import annotations

import contextlib
import socket
import threading

from compiled_dag.shm.board import SENT
from runtime import wire
from runtime.mailbox import Mailbox
from runtime.messages import Call, Reply, Resolved
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


def test_what_is_counted_and_taken_is_not_looked_for_again():
    ours, theirs = socket.socketpair()
    bells = Bells()
    with ours, theirs:
        mailbox = bells.mailbox = Mailbox(ours, bells, 3, contextlib.nullcontext())
        assert not mailbox.all_read
        for number in 1, 2:
            wire.send(theirs, Call(number, b"f", 1, [Parcel.of(1)]))
        bells.words[3] = 1  # the second is sent, and not counted yet
        assert mailbox.receive()
        assert mailbox.all_read
        assert len(mailbox.messages) == 2
        bells.words[3] = 2
        assert not mailbox.all_read
        assert not mailbox.receive()
        assert mailbox.all_read
        mailbox.close()


def test_what_fits_is_counted_as_whole_at_once_what_does_not_as_begun_before():
    ours, theirs = socket.socketpair()
    bells = Bells()
    with ours, theirs:
        mailbox = bells.mailbox = Mailbox(ours, bells, 3, contextlib.nullcontext())
        counts = []
        bells.ring = lambda line: counts.append((line, bells.words[3 + SENT]))
        mailbox.send(Reply(1, [Parcel.of(1)]))
        assert counts == [(0, 2)]
        large = Reply(2, [Parcel.of(b"x" * 90_000)] * 20)
        sender = threading.Thread(target=mailbox.send, args=(large,))
        sender.start()
        left = len(wire.pack(Reply(1, [Parcel.of(1)]))[0]) + len(wire.pack(large)[0])
        while left:
            left -= len(theirs.recv(1 << 16))
        sender.join()
        assert counts == [(0, 2), (0, 3), (0, 4)]
        mailbox.close()
