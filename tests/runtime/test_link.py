"""The driver's end of a control socket: no wait is left asleep."""

from __future__ import annotations

import socket
from contextlib import contextmanager

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


@contextmanager
def linked(receiver):
    """Yield a link, the board that it looks at, and the process's end of its socket."""
    ours, theirs = socket.socketpair()
    bells = Bells()
    with ours, theirs:
        bells.link = Link(
            ours,
            bells,
            1,
            Nobody(),
            receiver=receiver,
            find=lambda _: None,
            lend=lambda _: None,
            lend_memory=lambda _: None,
            memory=None,
            flusher=lambda: None,
            breaker=lambda _: None,
        )
        yield bells.link, bells, theirs
        bells.link.close()


def test_who_could_not_look_is_woken_when_the_other_has_read():
    with linked(lambda _: link.pump()) as (link, bells, theirs):  # as a thread that waits does
        bells.words[SENT] = 2
        wire.send(theirs, Reply(1, [Parcel.of(1)]))
        link._on_event(READABLE)
    assert bells.rung[-1] is False


def test_a_link_is_read_only_if_the_process_has_sent_something():
    taken = []
    with linked(taken.append) as (link, bells, theirs):
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


def test_a_reply_is_taken_in_one_look():
    taken, looks = [], []
    with linked(taken.append) as (link, bells, theirs):
        receive = link._inbox.receive
        link._inbox.receive = lambda into: looks.append(1) or receive(into)
        link.pump()
        for number in 1, 2, 3:
            wire.send(theirs, Reply(number, [Parcel.of(1)]))
            bells.words[SENT] += 2
            for _ in range(5):
                link.pump()
    assert [reply.number for reply in taken] == [1, 2, 3]
    assert len(looks) == 1 + 3
