"""`CPUCommunicator`: members are checked when a collective is bound, and gloo does the work."""

from __future__ import annotations

import pytest

import runtime
from collective import CPUCommunicator, allgather, allreduce
from compiled_dag import GraphError, InputNode, MultiOutputNode

torch = pytest.importorskip("torch")


@runtime.remote
class Rank:
    def tensor(self, x):
        return torch.full((2,), x)

    def read(self, tensor):
        return tensor.tolist()


@pytest.mark.proc
def test_collectives_of_its_members_run_on_gloo(session) -> None:
    actors = [Rank.remote() for _ in range(2)]
    group = CPUCommunicator(2, actors)
    with InputNode() as inp:
        nodes = [actor.tensor.bind(inp) for actor in actors]
        both = zip(
            actors,
            allreduce.bind(nodes, transport=group),
            allgather.bind([actor.tensor.bind(inp) for actor in actors], transport=group),
            strict=True,
        )
        dag = MultiOutputNode([a.read.bind(t) for a, *tensors in both for t in tensors])
    with dag.experimental_compile() as compiled:
        assert runtime.get(compiled.execute(3)) == [[6, 6], [3, 3, 3, 3]] * 2


@pytest.mark.proc
def test_only_its_members_may_take_part(session) -> None:
    first, second, third = actors = [Rank.remote() for _ in range(3)]
    group = CPUCommunicator(2, actors[:2])
    assert group.get_world_size() == 2
    assert group.get_actor_handles() == actors[:2]
    assert group.get_rank(second) == 1
    assert group.get_self_rank() is None
    with pytest.raises(ValueError, match="no member"):
        group.get_rank(third)
    with pytest.raises(ValueError, match="world_size=3, and 2 actors"):
        CPUCommunicator(3, actors[:2])
    with pytest.raises(ValueError, match="stands twice"):
        CPUCommunicator(2, [first, first])
    with InputNode() as inp:
        one, other = first.tensor.bind(inp), third.tensor.bind(inp)
        made = Rank.bind().tensor.bind(inp)
    with pytest.raises(GraphError, match=r"missing here: Rank\(2\); not among .*: Rank\(3\)"):
        allreduce.bind([one, other], transport=group)
    with pytest.raises(GraphError, match="that the graph makes itself"):
        allreduce.bind([one, made], transport=group)
    with pytest.raises(GraphError, match="is not a method of an actor"):
        allreduce.bind([one, inp], transport=group)
