from __future__ import annotations

import pytest

from compiled_dag import GraphError
from compiled_dag.communicator import OPERATIONS, Communicator, operations_of
from compiled_dag.members import actors_of, describe
from tests.communicators import Bare, PaperCommunicator
from tests.graphs import HOST, PaperActor, PaperHost, paper


class Reversed(Bare):
    """Its ranks are not in the order of its handles."""

    def get_rank(self, actor) -> int:
        return len(self._actors) - 1 - super().get_rank(actor)


class Muddled(Bare):
    """Two members have one rank."""

    def get_rank(self, actor) -> int:
        return super().get_rank(actor) // 2


def test_members_are_known_by_rank() -> None:
    actors = paper(3)
    found = actors_of(Reversed(actors), HOST)
    assert list(found) == actors[::-1]
    members = describe(7, PaperCommunicator(actors, "mine"), found)
    assert (members.id, members.label, members.transport) == (7, "PaperCommunicator", "mine")
    assert members.actors == (3, 2, 1)
    assert members.labels == ("Worker(3)", "Worker(2)", "Worker(1)")


def test_every_member_has_a_rank_of_its_own() -> None:
    with pytest.raises(GraphError, match=r"Muddled has 2 actors, .* and ranks \[0\]: give every"):
        actors_of(Muddled(paper(2)), HOST)


def test_members_are_actors_of_the_graphs_session() -> None:
    with pytest.raises(GraphError, match=r"Bare.get_actor_handles\(\): element 1 is no actor: 'x'"):
        actors_of(Bare([PaperActor(1), "x"]), HOST)
    with pytest.raises(GraphError, match=r"Bare: its member Worker\(1\) belongs to another sess"):
        actors_of(Bare(paper(1)), PaperHost())


def test_what_is_overridden_can_be_done() -> None:
    assert operations_of(Bare) == ()
    assert operations_of(PaperCommunicator) == ("send", "recv", "allreduce")
    assert all(hasattr(Communicator, name) for name in OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_not_overridden_cannot(name) -> None:
    count = {"send": 2, "recv": 3, "allreduce": 3, "reducescatter": 3, "reduce": 4}
    count |= {"broadcast": 3, "gather": 3, "scatter": 3}
    with pytest.raises(NotImplementedError):
        getattr(Bare([]), name)(*[None] * count.get(name, 2))


def test_the_rest_of_a_communicator_has_defaults() -> None:
    bare = Bare(paper(2))
    assert bare.get_world_size() == 2
    assert bare.send_stream is None
    assert bare.recv_stream is None
    assert Bare.generate_communicator_id() != Bare.generate_communicator_id()
    with pytest.raises(TypeError, match="abstract"):
        Communicator()
