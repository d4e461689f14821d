from __future__ import annotations

import time

import pytest

from collective import header as head
from collective import torch_group
from collective.group import DriverGroup
from compiled_dag import ActorDiedError, GraphError
from tests.gates import PATIENCE_S, Background, Gate
from tests.graphs import Worker


def soon() -> float:
    return time.monotonic() + PATIENCE_S


def open_group(host, actors, deadline) -> DriverGroup:
    """Return the gloo group of `actors`."""
    group = DriverGroup(host, actors, "gloo")
    group.open(deadline)
    return group


def ask(actor) -> int:
    """Call an actor the ordinary way."""
    return actor.echo.remote(5).result(soon())


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_a_group_has_an_end_in_every_actor_until_it_is_closed(host, num_ranks) -> None:
    actors = [host.actor(Worker()) for _ in range(num_ranks)]
    group = open_group(host, actors, soon())
    ends = [actor.resources[f"group {group.id}"] for actor in actors]
    assert [end.rank for end in ends] == list(range(num_ranks))
    del ends
    for _ in range(2):
        group.close(soon())
    assert [actor.resources for actor in actors] == [{}] * num_ranks
    assert [ask(actor) for actor in actors] == [5] * num_ranks


def test_groups_are_numbered_and_live_side_by_side(host) -> None:
    actors = [host.actor(Worker()) for _ in range(2)]
    first = open_group(host, actors, soon())
    second = open_group(host, actors[::-1], soon())
    assert first.id != second.id
    first.close(soon())
    assert list(actors[0].resources) == [f"group {second.id}"]
    second.close(soon())


def test_a_member_that_is_dead_is_told_at_once(host) -> None:
    alive, dead = host.actor(Worker()), host.actor(Worker())
    host.kill(dead.actor_id)
    with pytest.raises(ActorDiedError, match=r"Worker\(2\) was killed"):
        DriverGroup(host, [alive, dead], "gloo").open(soon())
    assert alive.resources == {}
    assert ask(alive) == 5


def test_a_member_that_dies_while_the_group_forms_ends_it_for_the_others(host) -> None:
    gate = Gate()
    waits, dies = host.actor(Worker()), host.actor(gate)
    call = dies.hold.remote(1)
    gate.wait_entered()
    forming = Background(open_group, host, [waits, dies], soon())
    # The first rank is in the rendezvous once its header says that it has come.
    assert forming.running(0.05)
    host.report_death(dies.actor_id)
    gate.opened.set()
    with pytest.raises(ActorDiedError, match=r"Gate\(2\) was killed"):
        forming.result()
    call.result(soon())
    assert ask(waits) == 5
    assert waits.resources == {}


def test_a_busy_member_is_named_when_the_time_is_over(host, monkeypatch) -> None:
    gate = Gate()
    waits, busy = host.actor(Worker()), host.actor(gate)
    call = busy.hold.remote(1)
    gate.wait_entered()
    close = DriverGroup.close

    def open_and_close(group, deadline) -> None:
        gate.opened.set()  # or it would wait for the actor to let go
        close(group, deadline)

    monkeypatch.setattr(DriverGroup, "close", open_and_close)
    with pytest.raises(GraphError, match=r"the gloo group of Worker\(1\), Gate\(2\) did not form"):
        DriverGroup(host, [waits, busy], "gloo").open(time.monotonic() + 0.05)
    call.result(soon())
    assert [ask(waits), ask(busy)] == [5, 5]
    assert waits.resources == busy.resources == {}


def test_a_backend_that_fails_on_one_rank_ends_the_compile_and_leaves_nothing(
    host, monkeypatch
) -> None:
    actors = [host.actor(Worker()) for _ in range(2)]

    def refuse(*_args):
        raise RuntimeError("no device")

    monkeypatch.setattr(torch_group, "GlooGroup", refuse)
    with pytest.raises(GraphError, match=r"did not form: Worker\(1\): no device"):
        DriverGroup(host, actors, "gloo").open(soon())
    assert [actor.resources for actor in actors] == [{}, {}]


def test_an_unknown_backend_is_refused_by_name(host) -> None:
    actor = host.actor(Worker())
    with pytest.raises(
        (GraphError, ValueError), match="no backend 'mpi': use 'gloo', 'nccl', 'shm' or 'cuda_ipc'"
    ):
        DriverGroup(host, [actor], "mpi").open(soon())
    assert actor.resources == {}


def test_breaking_a_group_stops_every_rank(host) -> None:
    actors = [host.actor(Worker()) for _ in range(2)]
    group = open_group(host, actors, soon())
    ends = [actor.resources[f"group {group.id}"] for actor in actors]
    group.end(head.BROKEN)
    assert [end.header.state for end in ends] == [head.BROKEN] * 2
    del ends
    group.close(soon())


def test_a_group_that_is_closed_ends_in_peace_unless_it_had_failed(host) -> None:
    for first, last in ((head.CLOSED, head.CLOSED), (head.BROKEN, head.BROKEN)):
        actors = [host.actor(Worker()) for _ in range(2)]
        group = open_group(host, actors, soon())
        end = actors[0].resources[f"group {group.id}"]
        group.end(first)
        group.close(soon())
        assert end.header.state == last
