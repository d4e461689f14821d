"""Eager collectives in real processes: groups made and met, and their bad days."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

import collective
import runtime
from compiled_dag import (
    ActorDiedError,
    CollectiveError,
    CollectiveMismatchError,
    CollectiveTimeoutError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from runtime import lifecycle
from tests.eager import Member
from tests.live import LONG_S, await_zygotes, wait_until

pytestmark = pytest.mark.proc


def make(count):
    await_zygotes()
    return [Member.remote(rank) for rank in range(count)]


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def error_of(ref):
    with pytest.raises(TaskError) as caught:
        get(ref)
    return caught.value


def is_waiting(actor) -> bool:
    """Tell whether an actor's main thread waits in a group."""
    session = lifecycle.current()
    id_ = actor._runtime_process.actor_id
    activity = session.activities([id_], time.monotonic(), stacks=False)[id_]
    return activity.wait is not None


def header_of_the_group():
    (group,) = lifecycle.current().groups._groups.values()
    return group._memory.header


# --- made and met ---------------------------------------------------------------------------------


def test_actors_meet_by_name_and_may_meet_again(session) -> None:
    members = make(2)
    for _ in range(2):
        assert get([one.join.remote(2) for one in members]) == [(0, 2), (1, 2)]
        assert get([one.total.remote() for one in members]) == [2.0, 2.0]
        assert get([one.facts.remote() for one in members]) == [(True, 0, 2), (True, 1, 2)]
        get([one.destroy.remote() for one in members])
        assert get([one.facts.remote() for one in members]) == [(False, -1, -1)] * 2
    assert lifecycle.current().groups._groups == {}


def test_a_group_from_outside_has_a_handle_and_ends_with_it(session) -> None:
    members = make(3)
    group = collective.create_collective_group(members, name="g", ranks=[2, 0, 1])
    assert (group.name, group.backend) == ("g", "gloo")
    assert group.actors == [members[1], members[2], members[0]]
    assert [group.get_rank(one) for one in members] == [2, 0, 1]
    assert [rank for _, rank, _ in get([one.facts.remote("g") for one in members])] == [2, 0, 1]
    assert collective.get_collective_groups(members[:1]) == [group]
    assert get([one.total.remote("g", 2.0) for one in members]) == [6.0] * 3
    collective.destroy_collective_group(group)
    assert collective.get_collective_groups() == []
    assert get(members[0].facts.remote("g")) == (False, -1, -1)
    again = collective.create_collective_group(members, name="g")
    collective.destroy_all_collective_groups()
    assert collective.get_collective_groups() == []
    with pytest.raises(ValueError, match="no collective group 'g'"):
        collective.destroy_collective_group(again)


def test_what_is_wrong_with_a_group_is_said_before_anything_is_made(session) -> None:
    members = make(2)
    create = collective.create_collective_group
    with pytest.raises(ValueError, match="stands twice among the actors, at positions 0 and 1"):
        create([members[0], members[0]])
    with pytest.raises(ValueError, match="there are no actors"):
        create([])
    with pytest.raises(TypeError, match="handles of actors, not str"):
        create(["x"])
    with pytest.raises(RuntimeError, match="permutation of 0 to 1"):
        create(members, ranks=[0, 2])
    with pytest.raises(ValueError, match="backend='mpi' is not known"):
        create(members, "mpi")
    with pytest.raises(ValueError, match="has no GPU"):
        create(members, "nccl")
    with pytest.raises(ValueError, match="timeout_s=0 must be"):
        create(members, timeout_s=0)
    with pytest.raises(ValueError, match="a CommunicatorHandle or a name, not int"):
        collective.destroy_collective_group(5)
    with pytest.raises(RuntimeError, match="is for actors, and this is the driver"):
        collective.init_collective_group(1, 0)
    with pytest.raises(RuntimeError, match="is for actors, and this is the driver"):
        collective.allreduce(torch.ones(1))
    assert not collective.is_group_initialized()
    for options in ({"world_size": 0}, {"world_size": 1, "group_name": ""}):
        assert isinstance(error_of(members[0].join.remote(**options)), ValueError)
    get(members[0].join.remote(1))
    twice = error_of(members[0].join.remote(1))
    assert isinstance(twice, RuntimeError)
    assert "in a group 'default' already" in str(twice)


@pytest.mark.filterwarnings("ignore:num_gpus=1 and")
@pytest.mark.parametrize("backend", ["nccl", "cuda_ipc"])
def test_what_is_for_gpus_is_refused_to_fake_ones(no_leaks, backend) -> None:
    with runtime.init(num_gpus=1):
        ranks = [Member.options(num_gpus=0.5).remote() for _ in range(2)]
        with pytest.raises(ValueError, match=f"backend='{backend}': the GPU of Member.1. is fake"):
            collective.create_collective_group(ranks, backend)


@runtime.remote
def in_a_task():
    try:
        collective.init_collective_group(1, 0)
    except RuntimeError as error:
        return str(error)


def test_tasks_are_in_no_group(session) -> None:
    assert "and this is a task" in get(in_a_task.remote())


def test_an_actor_makes_actors_and_a_group_of_them(session) -> None:
    maker = make(1)[0]
    assert get(maker.make.remote(2)) == 4.0


def test_an_actor_cannot_make_a_group_that_it_would_have_to_join_itself(session) -> None:
    members = make(2)
    error = error_of(members[0].make_of.remote(members))
    assert isinstance(error, CollectiveTimeoutError)
    assert "Member(1) did not join in time: busy in another call" in str(error)


class Doubling:
    """A backend of a user's; it does one operation, of one rank."""

    def __init__(self, world_size, rank, group_name):
        self.facts = world_size, rank, group_name

    def allreduce(self, send_buf, recv_buf, op):
        recv_buf.copy_(send_buf * 2)


def test_a_backend_of_the_users_goes_with_the_group(session) -> None:
    (member,) = make(1)
    collective.register_collective_backend("Doubling", Doubling)
    try:
        with pytest.raises(ValueError, match="the backend 'doubling' exists"):
            collective.register_collective_backend("doubling", Doubling)
        assert collective.is_backend_available("doubling")
        collective.create_collective_group([member], "doubling", "d")
        assert get(member.total.remote("d", 3.0)) == 6.0
    finally:
        collective.backends._registered.clear()


def test_what_is_available_is_known() -> None:
    assert collective.gloo_available()
    assert collective.is_backend_available("torch_gloo")
    assert collective.nccl_available() == torch.cuda.is_available()
    assert not collective.is_backend_available("mpi")


# --- together with the rest -----------------------------------------------------------------------


def test_methods_of_a_graph_may_use_a_group(session) -> None:
    members = make(2)
    collective.create_collective_group(members, name="g")
    with InputNode() as inp:
        dag = MultiOutputNode([one.total.bind("g", inp) for one in members])
    with dag.experimental_compile() as compiled:
        for value in (1.0, 2.5):
            assert get(compiled.execute(value)) == [2 * value] * 2


def test_a_graph_that_hangs_in_a_group_says_who_waits_for_whom(session) -> None:
    members = make(2)
    collective.create_collective_group(members, name="g")
    with InputNode() as inp:
        dag = members[0].total.bind("g", inp)
    with dag.experimental_compile() as compiled:
        ref = compiled.execute(1.0)
        wait_until(lambda: "waits for rank 1 (Member(2))" in str(compiled.hang_report()))
        report = str(compiled.hang_report())
        assert "where allreduce(SUM) of group 'g' waits for rank 1 (Member(2))" in report
        assert get(members[1].total.remote("g")) == 2.0
        assert get(ref) == 2.0


def test_actors_that_wait_for_each_other_in_a_group_and_a_call_are_told(
    session, monkeypatch
) -> None:
    monkeypatch.setattr("runtime.waits.AFTER_S", 0.3)
    members = make(2)
    get([one.pid.remote() for one in members])
    get([one.join.remote(2, timeout_s=5.0) for one in members])

    refs = [members[1].wait_for.remote(members[0]), members[0].total.remote()]
    with pytest.warns(RuntimeWarning, match="wait for each other in a circle") as caught:
        errors = [error_of(ref) for ref in refs]
    assert all(isinstance(error, CollectiveTimeoutError) for error in errors)
    assert "waits for rank 1 (Member(2)), for" in str(caught[0].message)


def test_operations_from_several_threads_follow_each_other(session) -> None:
    members = make(2)
    get([one.join.remote(2) for one in members])
    assert get([one.from_threads.remote() for one in members]) == [[1.0] * 4] * 2


def test_a_forked_child_is_in_no_group(session) -> None:
    members = make(2)
    get([one.join.remote(2) for one in members])
    assert get(members[0].in_fork.remote()).startswith("RuntimeError: ")
    assert get([one.total.remote() for one in members]) == [2.0, 2.0]


# --- bad days -------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [2, 4])
def test_who_waits_for_a_rank_that_is_killed_hears_of_it_at_once(session, world_size) -> None:
    *others, victim = make(world_size)
    collective.create_collective_group([*others, victim], name="g")
    refs = [one.total.remote("g") for one in others]
    wait_until(lambda: all(map(is_waiting, others)))
    os.kill(get(victim.pid.remote()), signal.SIGKILL)
    for error in map(error_of, refs):
        assert isinstance(error.cause, ActorDiedError)
        assert error.cause.signal == "SIGKILL"
    for one in others:
        assert isinstance(error_of(one.total.remote("g")).cause, ActorDiedError)
    collective.destroy_collective_group("g")
    collective.create_collective_group(others, name="g")
    assert get([one.total.remote("g") for one in others]) == [world_size - 1.0] * len(others)


@pytest.mark.parametrize("operation", ["allreduce", "reducescatter", "all_to_all"])
@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_a_rank_that_is_killed_in_the_middle_of_an_operation_is_the_cause(
    session, backend, operation
) -> None:
    members = make(4)
    collective.create_collective_group(members, backend, "g")
    pid = get(members[-1].pid.remote())
    refs = [one.long.remote("g", operation) for one in members]
    header = header_of_the_group()
    wait_until(lambda: header.words[header.line(0)] > 2)
    os.kill(pid, signal.SIGKILL)
    for ref in refs[:-1]:
        assert isinstance(error_of(ref).cause, ActorDiedError)


def test_a_rank_that_dies_when_gloo_is_done_has_no_rank_go_on(session) -> None:
    members = make(3)
    collective.create_collective_group(members, "gloo", "g")
    refs = [one.total.remote("g") for one in members[:2]]
    with pytest.raises(ActorDiedError):
        get(members[2].die_when_gloo_is_done.remote("g"))
    for ref in refs:
        assert isinstance(error_of(ref).cause, ActorDiedError)


@pytest.mark.parametrize("odd", [(4, "float32"), (3, "int32")], ids=["shape", "dtype"])
@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_ranks_that_bring_different_tensors_are_told_and_go_on(session, backend, odd) -> None:
    members = make(3)
    collective.create_collective_group(members, backend, "g")
    pids = get([one.pid.remote() for one in members])
    brought = [(3, "float32"), odd, (3, "float32")]
    refs = [one.bring.remote("g", *what) for one, what in zip(members, brought, strict=True)]
    for error in map(error_of, refs):
        assert isinstance(error, CollectiveMismatchError)
        odd_ones = [line for line in str(error.cause).splitlines() if "<-- differs" in line]
        assert len(odd_ones) == 1
        assert "Member(2)" in odd_ones[0]
    assert get([one.bring.remote("g", 3, "int64") for one in members]) == [3.0] * 3
    assert get([one.pid.remote() for one in members]) == pids


def test_a_rank_that_is_killed_before_it_has_joined_ends_the_making(session, tmp_path) -> None:
    *others, victim = make(3)
    pid = get(victim.pid.remote())
    busy = victim.be_busy_until.remote(str(tmp_path / "never"))
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(ActorDiedError, match=r"Member\(3\).*SIGKILL"):
        collective.create_collective_group([*others, victim], name="g")
    killer.join()
    with pytest.raises(ActorDiedError):
        get(busy)
    assert lifecycle.current().groups._groups == {}
    collective.create_collective_group(others, name="g")
    assert get([one.total.remote("g") for one in others]) == [2.0, 2.0]


def test_a_rank_that_is_stopped_in_the_middle_of_an_operation_is_late(session) -> None:
    members = make(2)
    _, pid = get([one.pid.remote() for one in members])
    collective.create_collective_group(members, name="g", timeout_s=5.0)
    refs = [one.long.remote("g") for one in members]
    header = header_of_the_group()
    wait_until(lambda: header.words[header.line(0)] > 2)
    os.kill(pid, signal.SIGSTOP)
    try:
        first = error_of(refs[0])
    finally:
        os.kill(pid, signal.SIGCONT)
    for error in (first, error_of(refs[1])):
        assert isinstance(error.cause, CollectiveTimeoutError)
        assert "rank 1 (Member(2)) is stopped by a signal; SIGCONT lets it go on" in str(error)


def test_a_rank_whose_call_is_cancelled_breaks_the_group(session) -> None:
    members = make(2)
    collective.create_collective_group(members, name="g")
    ref = members[0].total.remote("g")
    header = header_of_the_group()
    wait_until(lambda: header.words[header.line(0)])
    runtime.cancel(ref)
    with pytest.raises(runtime.exceptions.TaskCancelledError):
        get(ref)
    error = error_of(members[1].total.remote("g"))
    assert type(error.cause) is CollectiveError
    assert "rank 0 (Member(1)) was interrupted in it" in str(error)


def test_an_actor_that_is_made_again_joins_again(session) -> None:
    await_zygotes()
    first, second = (
        Member.options(max_restarts=1, max_task_retries=1).remote(rank) for rank in range(2)
    )
    get([one.join.remote(2) for one in (first, second)])
    os.kill(get(second.pid.remote()), signal.SIGKILL)
    wait_until(lambda: second._runtime_process.life.fate.num_restarts == 1)
    assert isinstance(error_of(first.total.remote()).cause, ActorDiedError)
    assert get(second.facts.remote()) == (False, -1, -1)
    get(first.destroy.remote())
    get([one.join.remote(2) for one in (first, second)])
    assert get([one.total.remote() for one in (first, second)]) == [2.0, 2.0]


def test_a_group_keeps_no_actor_alive_and_goes_with_the_last(session) -> None:
    members = make(2)
    collective.create_collective_group(members, name="g")
    groups = lifecycle.current().groups
    assert len(groups._groups) == 1
    members.clear()
    wait_until(lambda: not groups._groups)


def test_a_busy_actor_is_named_when_a_group_does_not_form(session, tmp_path) -> None:
    members = make(2)
    busy = members[1].be_busy_until.remote(str(tmp_path / "go"))
    with pytest.raises(CollectiveTimeoutError, match=r"Member\(2\) did not join in time: busy"):
        collective.create_collective_group(members, timeout_s=0.5)
    (tmp_path / "go").touch()
    assert get(busy) == "done"
    with pytest.raises(CollectiveTimeoutError, match="timeout_s=1e-09 is less than it takes"):
        collective.create_collective_group(members, timeout_s=1e-9)
    group = collective.create_collective_group(members)
    assert get([one.total.remote(group.name) for one in members]) == [2.0, 2.0]


def test_the_end_of_the_session_frees_what_waits(no_leaks) -> None:
    runtime.init()
    try:
        members = make(2)
        collective.create_collective_group(members, name="g")
        ref = members[0].total.remote("g")
        wait_until(lambda: is_waiting(members[0]))
        started = time.monotonic()
    finally:
        runtime.shutdown()
    assert time.monotonic() - started < LONG_S
    with pytest.raises(ActorDiedError):
        get(ref)
