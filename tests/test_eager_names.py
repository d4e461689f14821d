"""Names of eager groups in real processes: what can be one, and from when on it is free."""

from __future__ import annotations

import pytest

import collective
import runtime
from tests.eager import Member
from tests.live import LONG_S, await_zygotes

pytestmark = pytest.mark.proc


def make(count):
    await_zygotes()
    return [Member.remote(rank) for rank in range(count)]


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


@pytest.mark.parametrize("how", ["gone", "in a cycle", "killed", "busy"])
def test_the_name_of_a_group_is_free_as_soon_as_its_actors_handles_are_gone(
    session, tmp_path, how
) -> None:
    members, others = make(2), make(2)
    collective.create_collective_group(members, name="g")
    busy = [members[0].be_busy_until.remote(str(tmp_path / "go"))] * (how == "busy")
    if how == "in a cycle":
        members.append(members)
        del members
    elif how == "killed":
        for one in members:
            runtime.kill(one)
    else:
        members.clear()
    collective.create_collective_group(others, name="g")
    (tmp_path / "go").touch()
    assert get(busy) == ["done"] * len(busy)
    assert get([one.total.remote("g") for one in others]) == [2.0, 2.0]
    (info,) = collective.get_collective_groups()
    assert info.actors == others


def test_what_is_no_list_of_actors_and_no_name_is_refused(session) -> None:
    members = make(2)
    create = collective.create_collective_group
    for wrong in (members[0], 3):
        with pytest.raises(TypeError, match=r"takes a list of actors, \[actor, ...\], not"):
            create(wrong)
    for wrong in (3, ""):
        with pytest.raises(ValueError, match=f"name={wrong!r} must be a str that is not empty"):
            create(members, name=wrong)
    with pytest.raises(RuntimeError, match="ranks=1 must be a permutation of 0 to 1"):
        create(members, ranks=1)
    with pytest.raises(TypeError, match="not ActorClass .*: make actors of it with remote"):
        create([Member])
    with pytest.raises(TypeError, match="get_collective_groups takes a list of actors"):
        collective.get_collective_groups(members[0])
    assert collective.get_collective_groups() == []
    group = collective.create_collective_group(members, name="g")
    with pytest.raises(ValueError, match="pass the handle's name, 'g'"):
        get(members[0].total.remote(group))
