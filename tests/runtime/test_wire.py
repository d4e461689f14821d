"""Frames on a socket pair: whole, in pieces, with descriptors, and what is no frame."""

from __future__ import annotations

import os
import resource
import socket
from collections import deque
from pathlib import Path

import pytest

from runtime import wire
from runtime.messages import (
    Answer,
    Ask,
    Call,
    Item,
    Put,
    Reply,
    Resolved,
    Spawned,
    Submit,
    System,
    SystemReply,
)
from runtime.parcel import Parcel
from tests.runtime.descriptors import received


def parcels(*values):
    return [Parcel.of(value) for value in values]


MESSAGES = [
    Call(7, b"method", 2, parcels(1, "two")),
    Reply(8, parcels([3])),
    Reply(9, []),
    Put(10, parcels(b"x" * 1000)),
    Item(11, (5).to_bytes(8, "little"), parcels(4)),
    Submit(12, b"head", parcels(None)),
    Resolved(13, b"error", []),
    Ask(14, b"what", parcels({})),
    System(15, b"function", b"payload", []),
    SystemReply(16, True, b"data"),
    Answer(number=17, failed=False, data=b"data"),
]


def plain(message):
    """Return a message with its parcels' values: those compare."""
    fields = message._asdict() if hasattr(message, "_asdict") else {"all": message}
    return type(message), {
        name: [parcel.load() for parcel in value] if name == "parcels" else value
        for name, value in fields.items()
    }


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("piece", [1, 20, 1 << 20])
def test_messages_arrive_as_they_were_however_they_are_cut(pair, message, piece):
    ours, theirs = pair
    inbox = wire.Inbox(ours)
    data, _ = wire.pack(message)
    found = []
    for start in range(0, 2 * len(data), piece):
        theirs.sendall((data * 2)[start : start + piece])
        found += received(inbox)
    assert [plain(one) for one in found] == [plain(message)] * 2


def test_a_frame_larger_than_the_buffer(pair):
    ours, theirs = pair
    inbox, big = wire.Inbox(ours), b"x" * 1_000_000
    data, _ = wire.pack(SystemReply(1, False, big))
    found = []
    for start in range(0, len(data), 100_000):
        theirs.sendall(data[start : start + 100_000])
        found += received(inbox)
    assert [one.data for one in found] == [big]


def test_descriptors_go_with_their_frames_in_order(pair):
    ours, theirs = pair
    inbox = wire.Inbox(ours)
    made = [os.memfd_create(f"wire-{n}") for n in range(3)]
    for n, fd in enumerate(made):
        wire.send(theirs, Spawned(actor_id=n, pid=n, fds=(fd,)))
        os.close(fd)
    found = received(inbox)
    names = [str(Path(f"/proc/self/fd/{message.fds[0]}").readlink()) for message in found]
    assert [name.split()[0] for name in names] == [f"/memfd:wire-{n}" for n in range(3)]
    for message in found:
        os.close(message.fds[0])


def test_an_inbox_tells_whether_it_took_all_there_was(pair):
    ours, theirs = pair
    inbox, into = wire.Inbox(ours), deque()
    frame, _ = wire.pack(SystemReply(1, False, b"x"))
    theirs.sendall(frame * 3 + frame[:5])
    assert inbox.receive(into)
    assert inbox.emptied
    assert len(into) == 3
    theirs.sendall(frame[5:])
    wire.send(theirs, Spawned(actor_id=1, pid=1, fds=(0,)))  # ends a read, whatever is behind it
    wire.send(theirs, SystemReply(2, False, b""))
    assert inbox.receive(into)
    assert not inbox.emptied
    assert inbox.receive(into)
    assert inbox.emptied
    assert len(into) == 6
    os.close(into[4].fds[0])
    assert not inbox.receive(into)
    assert inbox.emptied


def test_a_read_that_fills_the_buffer_may_have_left_something(pair):
    ours, theirs = pair
    inbox, into = wire.Inbox(ours), deque()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    frame, _ = wire.pack(SystemReply(1, False, bytes(1000)))
    theirs.sendall(frame * 300)
    rounds = []
    while inbox.receive(into):
        rounds.append(inbox.emptied)
    assert len(into) == 300
    assert rounds == [False, True]


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"\xff" * 100, b"printed by mistake, after the descriptors were closed\n"]
)
def test_what_is_no_message_closes_the_inbox_and_is_never_unpickled(pair, junk):
    ours, theirs = pair
    inbox = wire.Inbox(ours)
    wire.send(theirs, SystemReply(1, False, b""))
    theirs.sendall(junk)
    into = deque()
    with pytest.raises(OSError, match="somebody else"):
        inbox.receive(into)
    assert [one.number for one in into] == [1]
    assert inbox.closed
    assert not inbox.receive(into)


def test_no_room_for_a_descriptor_closes_the_inbox(pair):
    ours, theirs = pair
    inbox = wire.Inbox(ours)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wire.send(theirs, Spawned(actor_id=1, pid=1, fds=(0,)))
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="too many open files"):
            inbox.receive(deque())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert inbox.closed
