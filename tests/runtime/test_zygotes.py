"""The driver's side of a zygote, without one."""

from __future__ import annotations

import os
import resource
import socket
from types import SimpleNamespace

import pytest

from runtime import wire
from runtime.messages import Spawned, SpawnFailed
from runtime.zygotes import _Client


class Births:
    """Takes note of what is reported."""

    def __init__(self):
        self.found = []

    def spawned(self, actor_id, pid, pidfd):
        os.close(pidfd)
        self.found.append((actor_id, pid))

    def spawn_failed(self, actor_id, reason):
        self.found.append((actor_id, reason))


@pytest.fixture
def made():
    """Yield a client, what it has reported, the zygotes it gave up, and the zygote's socket."""
    ours, theirs = socket.socketpair()
    births, lost = Births(), []
    supervisor = SimpleNamespace(watch=lambda *_: None, forget=lambda *_: None)
    client = _Client(ours, supervisor, births, lost.append)
    with theirs:
        yield client, births.found, lost, theirs
        client.close()


def test_what_a_zygote_says_is_passed_on(made):
    client, found, lost, theirs = made
    wire.send(theirs, Spawned(actor_id=1, pid=10, fds=(0,)))
    wire.send(theirs, SpawnFailed(actor_id=2, reason="full"))
    client._on_event(0)
    client._on_event(0)  # the kernel cuts where descriptors come
    assert (found, lost) == ([(1, 10), (2, "full")], [])
    theirs.close()
    client._on_event(0)
    assert lost == [client]


def test_without_room_for_a_descriptor_the_zygote_counts_as_lost(made):
    client, found, lost, theirs = made
    wire.send(theirs, Spawned(actor_id=1, pid=10, fds=(0,)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        client._on_event(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found, lost) == ([], [client])
