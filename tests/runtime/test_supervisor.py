"""The supervising thread: what of a descriptor it watches, and since when."""

import os
import threading

import pytest

from runtime.supervisor import READABLE, Supervisor


class Counting:
    """An epoll that counts its changes."""

    def __init__(self, epoll):
        self._epoll = epoll
        self.changes = []

    def modify(self, fd, events):
        self.changes.append((fd, events))
        self._epoll.modify(fd, events)

    def __getattr__(self, name):
        return getattr(self._epoll, name)


@pytest.fixture
def supervisor():
    made = Supervisor()
    made._epoll = Counting(made._epoll)
    yield made
    made.stop()


@pytest.fixture
def pipe(supervisor):
    read, write = os.pipe()
    heard = threading.Event()
    supervisor.watch(read, lambda _: (os.read(read, 1), heard.set()), 0)
    yield read, write, heard
    supervisor.forget(read)
    os.close(read)
    os.close(write)


def test_a_late_change_comes_by_itself(supervisor, pipe):
    read, write, heard = pipe
    supervisor.start()
    os.write(write, b"x")
    supervisor.change_late(read, READABLE)
    assert heard.wait(60)


def test_what_is_changed_back_in_time_costs_no_system_call(supervisor, pipe):
    read, _, _ = pipe
    for _ in range(3):
        supervisor.change_late(read, READABLE)
        supervisor.change(read, 0)
    assert supervisor._epoll.changes == []


def test_a_late_change_is_made_before_that_of_another_descriptor(supervisor, pipe):
    read, _, _ = pipe
    supervisor.change_late(read, READABLE)
    supervisor.change(supervisor._wake, READABLE)
    assert supervisor._epoll.changes == [(read, READABLE)]


def test_a_late_change_is_made_when_somebody_asks_for_it(supervisor, pipe):
    read, _, _ = pipe
    supervisor.change_late(read, READABLE)
    supervisor.settle()
    supervisor.settle()
    assert supervisor._epoll.changes == [(read, READABLE)]


def test_a_descriptor_that_is_forgotten_is_changed_no_more(supervisor, pipe):
    read, _, _ = pipe
    supervisor.change_late(read, READABLE)
    supervisor.forget(read)
    supervisor.settle()
    supervisor.change(read, READABLE)
    assert supervisor._epoll.changes == []
