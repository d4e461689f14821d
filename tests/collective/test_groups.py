"""Groups in the driver: how ranks meet, and what breaks a group. Ranks on threads, real gloo."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest
import torch

import collective.eager_group
import collective.group_memory
import collective.groups
import collective.header
import collective.pairs
import compiled_dag.shm.segment
from collective.groups import Groups
from compiled_dag import (
    ActorDiedError,
    CollectiveError,
    CollectiveMismatchError,
    CollectiveTimeoutError,
)
from tests.collective.members import members, raised, until  # noqa: F401  a fixture
from tests.collective.parts import at_once
from tests.gates import Interrupt
from tests.leaks import snapshot

DEFAULT = "default"
DESTROYING = (collective.groups, collective.eager_group, collective.group_memory)
MAKING = (*DESTROYING, collective.header, collective.pairs, compiled_dag.shm.segment)


@pytest.fixture
def alone(members):  # noqa: F811
    """Three actors without a group."""
    session = members(3)
    session.groups.destroy(DEFAULT)
    return session


def ask(session, rank, world_size=2, *, actor=None, backend="gloo", timeout_s=30.0):
    """Ask for the group ``"g"``; returns the rank, or what it raises."""
    groups: Groups = session.groups
    part, fds = groups.meet(actor or rank + 1, "g", world_size, rank, backend, timeout_s)
    for fd in fds:
        os.close(fd)
    return part


# --- meeting --------------------------------------------------------------------------------------


def test_ranks_that_ask_for_one_name_meet(alone) -> None:
    first, second = at_once(lambda: ask(alone, 0), lambda: ask(alone, 1))
    assert (first.rank, second.rank) == (0, 1)
    assert first.group_id == second.group_id
    assert first.labels == ("Worker(1)", "Worker(2)")


def test_groups_of_one_name_may_be_made_by_others_later(alone) -> None:
    first, _ = at_once(lambda: ask(alone, 0), lambda: ask(alone, 1))
    second = ask(alone, 0, 1, actor=3)
    assert second.group_id != first.group_id


def test_who_does_not_come_is_named_to_all_who_wait(alone) -> None:
    def impatient():
        until(lambda: alone.groups._seats)
        return ask(alone, 0, 3, timeout_s=0.2)

    errors = raised(at_once(impatient, lambda: ask(alone, 2, 3)))
    for error in errors:
        assert type(error) is CollectiveTimeoutError
        assert "group 'g': rank 1 of 3 did not come within" in str(error)
        assert "rank 0 (Worker(1)), rank 2 (Worker(3))" in str(error)
    assert ask(alone, 0, 1).rank == 0  # the name is free again


def test_who_dies_while_they_meet_is_told_to_those_who_wait(alone) -> None:
    def second():
        until(lambda: alone.groups._seats)
        alone.host.die(1)

    (error, _) = at_once(lambda: ask(alone, 0, 3), second)
    assert type(error) is ActorDiedError


def test_ranks_that_ask_for_different_groups_are_told_both(alone) -> None:
    for error in raised(at_once(lambda: ask(alone, 0, 2), lambda: ask(alone, 1, 3))):
        assert type(error) is CollectiveMismatchError
        assert "world_size=2" in str(error)
        assert "world_size=3" in str(error)


def test_a_rank_belongs_to_one_actor(alone) -> None:
    def intruder():
        until(lambda: alone.groups._seats)
        with pytest.raises(
            RuntimeError, match=r"rank 0 of group 'g' is Worker\(1\), and Worker\(3\)"
        ):
            ask(alone, 0, 2, actor=3)
        return ask(alone, 1, 2)

    first, second = at_once(lambda: ask(alone, 0, 2), intruder)
    assert (first.rank, second.rank) == (0, 1)


def test_nccl_is_refused_where_it_cannot_run(alone) -> None:
    with pytest.raises(ValueError, match="cannot be on backend='nccl': .* has no GPU"):
        ask(alone, 0, 1, backend="nccl")


def test_the_end_of_the_session_ends_the_waiting_for_others(alone) -> None:
    def end():
        until(lambda: alone.groups._seats)
        alone.groups.close()

    (error, _) = at_once(lambda: ask(alone, 0, 2), end)
    assert type(error) is RuntimeError
    assert "session has ended" in str(error)


# --- made from outside ----------------------------------------------------------------------------


def test_names_and_actors_are_taken_once(members) -> None:  # noqa: F811
    session = members(2)
    with pytest.raises(RuntimeError, match=r"a group 'default' of Worker\(1\), Worker\(2\) exists"):
        session.create()
    with pytest.raises(RuntimeError, match=r"Worker\(1\) is in the gloo group 'default' already"):
        session.create("other")
    session.groups.destroy(DEFAULT)
    session.create("other")
    with pytest.raises(ValueError, match="no collective group 'default'; there are: 'other'"):
        session.groups.destroy(DEFAULT)


def test_the_name_of_a_group_whose_actors_nobody_has_is_free(members) -> None:  # noqa: F811
    session = members(3)
    groups = session.groups
    session.released.update([1, 2])
    with pytest.raises(RuntimeError, match="a group 'default' of"):  # one of them lives
        groups.create([3], "gloo", None, DEFAULT, 30.0)
    session.host.die(3)
    assert groups.find([], None) == []  # nobody has what handles of them would be made from
    session.homes.append(session.home(4))
    groups.create([4], "shm", None, DEFAULT, 30.0)
    assert [info.actors for info in groups.find([], None)] == [(4,)]
    groups.destroy(DEFAULT)
    assert [group.actor_ids for group in groups._groups.values()] == [(1, 2, 3)]
    groups.destroy(DEFAULT)
    assert groups._groups == {}


def test_groups_are_found_by_actors_and_backend(members) -> None:  # noqa: F811
    groups = members(2).groups
    (info,) = groups.find([], None)
    assert (info.name, info.backend, info.actors) == (DEFAULT, "gloo", (1, 2))
    assert groups.find([2, 1], "gloo") == [info]
    assert groups.find([3], None) == []
    assert groups.find([1], "nccl") == []
    groups.destroy_all()
    assert groups.find([], None) == []


def test_ctrl_c_on_any_line_of_making_a_group_leaves_nothing(alone) -> None:
    before = memory_files()
    for line in itertools.count(1):
        with Interrupt(MAKING, line) as interrupt:
            alone.create()
        if not interrupt.raised:
            break
        assert alone.groups._groups == {}
        until(lambda: memory_files() <= before)  # ranks that had begun to join leave by themselves
    assert line > 200


def test_ctrl_c_on_any_line_of_destroying_a_group_leaves_it_or_nothing(alone) -> None:
    before = memory_files()
    for line in itertools.count(1):
        alone.create()
        with Interrupt(DESTROYING, line) as interrupt:
            alone.groups.destroy(DEFAULT)
        with contextlib.suppress(ValueError):  # it has gone with its last rank
            alone.groups.destroy(DEFAULT)
        assert alone.groups._groups == {}
        until(lambda: memory_files() <= before)
        if not interrupt.raised:
            break
    assert line > 20


def memory_files() -> int:
    return sum("memfd:" in target for _, target in snapshot().descriptors)


# --- what breaks a group --------------------------------------------------------------------------


def test_a_death_releases_all_who_wait_with_its_cause(members) -> None:  # noqa: F811
    session = members(3)

    def die():
        session.host.die(3)

    def wait():
        collective.allreduce(torch.ones(2))

    first, second, _ = session.run(wait, wait, die)
    assert type(first) is type(second) is ActorDiedError
    (later,) = session.run(wait)
    assert type(later) is ActorDiedError
    assert "Worker(3) died" in str(later)


def test_a_late_rank_is_named_on_all_ranks_and_breaks_the_group(members) -> None:  # noqa: F811
    session = members(3, timeout_s=2.0)
    early = raised(session.run(collective.barrier, lambda: collective.allreduce(torch.ones(1))))
    for error in (*early, *raised(session.run_all(lambda _: collective.barrier()))):
        assert type(error) is CollectiveTimeoutError
        assert "rank 2 (Worker(3)) did not come within 2.0 s" in str(error)


def test_a_message_that_nobody_takes_times_out(members) -> None:  # noqa: F811
    session = members(2, timeout_s=1.0)
    (error,) = raised(session.run(lambda: collective.send(torch.ones(1), 1)))
    assert type(error) is CollectiveTimeoutError
    assert "send(dst_rank=1) of group 'default': rank 1 (Worker(2)) did not come" in str(error)
    for later in raised(session.run_all(lambda _: collective.barrier())):
        assert str(later) == str(error)


@pytest.mark.parametrize("wait", [
    collective.barrier,
    lambda: collective.recv(torch.ones(1), 1),
])  # fmt: skip
def test_who_waits_for_a_rank_that_has_left_is_told(members, wait) -> None:  # noqa: F811
    session = members(2)
    (error,) = raised(session.run(wait, session.homes[1].close)[:1])
    assert type(error) is CollectiveError
    assert "rank 1 (Worker(2)) has left the group" in str(error)


def test_what_was_agreed_on_before_a_rank_left_is_done(members) -> None:  # noqa: F811
    session = members(2)

    def last():
        collective.send(torch.ones(500_000), 0)
        session.homes[1].close()

    got = torch.zeros(500_000)
    assert session.run(lambda: collective.recv(got, 1), last) == [None, None]
    assert got.min() == 1


def test_destroying_a_group_releases_who_waits(members) -> None:  # noqa: F811
    session = members(2)

    def destroy():
        header = session.homes[0].members[DEFAULT]._header
        until(lambda: header.words[header.line(0)])
        session.groups.destroy(DEFAULT)

    (error, _) = session.run(collective.barrier, destroy)
    assert type(error) is CollectiveError
    assert "group 'default' was destroyed" in str(error)


def test_a_group_goes_when_its_last_rank_has(members) -> None:  # noqa: F811
    session = members(2)
    session.host.die(1)
    assert len(session.groups.find([], None)) == 1
    session.host.die(2)
    assert session.groups.find([], None) == []


def test_a_rank_that_is_interrupted_in_an_operation_breaks_the_group(members, monkeypatch) -> None:  # noqa: F811
    session = members(2)

    def interrupt(*_):
        raise KeyboardInterrupt

    def first():
        member = session.homes[0].members[DEFAULT]
        monkeypatch.setattr(member._standing, "guard", interrupt)
        collective.barrier()

    (error,) = raised(session.run(first))
    assert type(error) is KeyboardInterrupt
    (other,) = raised(session.run_all(lambda rank: rank and collective.barrier())[1:])
    assert type(other) is CollectiveError
    assert "rank 0 (Worker(1)) was interrupted in it" in str(other)
