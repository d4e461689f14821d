"""The driver's end of a control socket: no wait is left asleep."""

from __future__ import annotations

import socket

from compiled_dag.shm.board import SENT
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
        self.words = [0] * 64

    def word_index(self, process, word):
        return word

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
            lend_memory=lambda _: None,
            memory=None,
            flusher=lambda: None,
            breaker=lambda _: None,
        )
        bells.words[SENT] = 2
        wire.send(theirs, Reply(1, [Parcel.of(1)]))
        link._on_event(READABLE)
        link.close()
    assert bells.rung[-1] is False


def test_a_link_is_read_only_if_the_process_has_sent_something():
    ours, theirs = socket.socketpair()
    bells = Bells()
    taken = []
    with ours, theirs:
        link = bells.link = Link(
            ours,
            bells,
            1,
            Nobody(),
            receiver=taken.append,
            find=lambda _: None,
            lend=lambda _: None,
            lend_memory=lambda _: None,
            memory=None,
            flusher=lambda: None,
            breaker=lambda _: None,
        )
        link.pump()  # finds nothing, and notes the count
        wire.send(theirs, Reply(1, [Parcel.of(1)]))
        link.pump()
        assert not taken  # nobody has counted it
        bells.words[SENT] = 1  # it is on its way
        link.pump()
        assert [reply.number for reply in taken] == [1]
        link.pump()
        wire.send(theirs, Reply(2, [Parcel.of(1)]))
        link.pump()  # the same count, but one is still on its way
        assert [reply.number for reply in taken] == [1, 2]
        link.close()


def test_a_reply_is_taken_in_one_look():
    ours, theirs = socket.socketpair()
    bells = Bells()
    taken, looks = [], []
    with ours, theirs:
        link = bells.link = Link(
            ours,
            bells,
            1,
            Nobody(),
            receiver=taken.append,
            find=lambda _: None,
            lend=lambda _: None,
            lend_memory=lambda _: None,
            memory=None,
            flusher=lambda: None,
            breaker=lambda _: None,
        )
        receive = link._inbox.receive
        link._inbox.receive = lambda into: looks.append(1) or receive(into)
        link.pump()
        for number in 1, 2, 3:
            wire.send(theirs, Reply(number, [Parcel.of(1)]))
            bells.words[SENT] += 2
            for _ in range(5):
                link.pump()
        link.close()
    assert [reply.number for reply in taken] == [1, 2, 3]
    assert len(looks) == 1 + 3
