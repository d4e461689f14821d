"""The test that users run on their communicators: passes what is right, names what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from runtime.testing import check_communicator
from tests.communicators import Bare, Pipes

pytestmark = pytest.mark.proc


@pytest.fixture
def check(session, tmp_path):
    """Check a kind of communicator over pipes."""

    def run(kind=Pipes, world_size=2, timeout_s=30.0):
        made = []

        def make(actors):
            folder = tmp_path / f"{len(made)}"
            folder.mkdir()
            made.append(kind(actors, folder))
            return made[-1]

        return check_communicator(make, world_size=world_size, timeout_s=timeout_s)

    return run


def test_a_right_one_passes(check):
    assert len(check(world_size=3)) == 10


def test_one_that_only_knows_its_members_passes(session):
    assert check_communicator(Bare, world_size=2) == ()


def test_one_of_a_class_that_no_actor_can_import_passes(check):
    """Such as a script's own: graphs send it by value."""

    class Local(Pipes):
        pass

    assert len(check(Local)) == 10


def test_what_is_no_communicator_is_refused(session):
    with pytest.raises(AssertionError, match="None is no Communicator"):
        check_communicator(lambda _: None, world_size=2)


def test_fewer_than_two_ranks_are_refused():
    with pytest.raises(ValueError, match="world_size=1: .* two ranks or more"):
        check_communicator(Bare, world_size=1)


class Unplugged(Pipes):
    def send(self, value, peer_rank):
        raise RuntimeError("no cable")


def test_every_failure_is_one_line_with_its_place(check):
    with pytest.raises(AssertionError) as raised:
        check(Unplugged, timeout_s=5.0)  # the other rank waits for what was not sent
    first, *lines = str(raised.value).splitlines()
    assert first == "the communicator does not keep its contract:"
    assert len(lines) > 1
    place = r'raised RuntimeError: no cable \(File ".*test_testing.py", line \d+, in send\)'
    sends = [line for line in lines if "no cable" in line]
    assert sends
    assert all(re.search(place, line) for line in sends)
    assert all(line.startswith("  ") and "Traceback" not in line for line in lines)


class Swapped(Pipes):
    def allgather(self, send_buf, recv_buf):
        parts = self._from_all(send_buf)
        recv_buf.copy_(torch.cat(parts[::-1]))


class Eats(Pipes):
    def allreduce(self, send_buf, recv_buf, op):
        super().allreduce(send_buf, recv_buf, op)
        send_buf.zero_()


class OwnMemory(Pipes):
    def recv(self, shape, dtype, peer_rank, allocator=None):
        return super().recv(shape, dtype, peer_rank)


class Flat(Pipes):
    def recv(self, shape, dtype, peer_rank, allocator=None):
        return super().recv(shape, dtype, peer_rank, allocator).flatten()


class Once(Pipes):
    def initialize(self, rank):
        mark = Path(self._folder.parent, f"used {rank}")
        if mark.exists():
            raise OSError("the port is taken")
        mark.touch()
        super().initialize(rank)


class Open(Pipes):
    def get_rank(self, actor):
        return self._actors.index(actor) if actor in self._actors else -1


class OneWay(Pipes):
    recv = Bare.recv


class Locked(Pipes):
    def __reduce__(self):
        raise TypeError("it has a lock")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Swapped, r"allgather\(float32 \(5, 3\)\): rank 0 got .*, not "),
        (Eats, r"rank 1's send_buf was changed"),
        (OwnMemory, r"rank 1 did not use the allocator"),
        (Flat, r"rank 1 received float32 \(15,\)"),
        (Once, r"initialize: .*the port is taken"),
        (Open, r"no member: -1, no ValueError"),
        (OneWay, r"one of send and recv is missing"),
        (Locked, r"it does not pickle: TypeError\('it has a lock'\)"),
    ],
)
def test_what_is_wrong_is_named(check, kind, text):
    with pytest.raises(AssertionError, match=text):
        check(kind)


class Deaf(Pipes):
    def broadcast(self, send_buf, recv_buf, src_rank):
        while self._rank == 0:
            self.pause()

    @staticmethod
    def pause():
        import threading

        threading.Event().wait()


def test_a_rank_that_never_returns_is_named(check):
    with pytest.raises(AssertionError, match=r"broadcast.*call 0 had not returned after 5 s"):
        check(Deaf, timeout_s=5.0)


class Believes(Pipes):
    """Takes a peer that has gone for one that brings zeros."""

    def _exchange(self, chunks):
        try:
            return super()._exchange(chunks)
        except (EOFError, OSError):
            return [torch.zeros_like(chunk) for chunk in chunks]


def test_a_death_that_is_not_noticed_is_named(check):
    with pytest.raises(AssertionError, match=r"while the last rank dies: rank 0 returned as if"):
        check(Believes)
