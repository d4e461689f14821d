"""allreduce over NCCL.

One GPU serves two ranks by way of a different NCCL_HOSTID each, which makes NCCL take them for two
hosts on the socket transport: correctness only, never speed.
"""

from __future__ import annotations

import pytest

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import InputNode, MultiOutputNode, TaskError

pytestmark = [pytest.mark.proc]


class Rank:
    def __init__(self, rank):
        self.rank = rank

    def gradient(self, n):
        import torch

        if n == "shape":
            n = 3 + self.rank
        return torch.full((n,), float(self.rank + 1), device="cuda")

    def first(self, tensor):
        return tensor.device.type, float(tensor[0])


@pytest.fixture
def ranks(no_leaks):
    # Two logical GPUs, mapped modulo onto what is there.
    runtime.init(num_gpus=2)
    try:
        yield [
            runtime.remote(Rank)
            .options(
                num_gpus=1,
                runtime_env={
                    "env_vars": {
                        "NCCL_HOSTID": f"rank{rank}",
                        "NCCL_NET": "Socket",
                        "NCCL_SOCKET_IFNAME": "lo",
                        "NCCL_P2P_DISABLE": "1",
                        "NCCL_SHM_DISABLE": "1",
                    }
                },
            )
            .remote(rank)
            for rank in range(2)
        ]
    finally:
        runtime.shutdown()


def _graph(ranks, op=ReduceOp.SUM):
    with InputNode() as inp:
        reduced = allreduce.bind([rank.gradient.bind(inp) for rank in ranks], op=op)
        return MultiOutputNode([r.first.bind(t) for r, t in zip(ranks, reduced, strict=True)])


@pytest.mark.parametrize(("op", "expected"), [(ReduceOp.SUM, 3.0), (ReduceOp.AVG, 1.5)])
def test_allreduce_of_gpu_tensors_is_right(ranks, op, expected):
    with _graph(ranks, op).experimental_compile() as compiled:
        for n in (1, 1000, 1 << 20):
            assert runtime.get(compiled.execute(n)) == [("cuda", expected)] * 2


def test_a_shape_mismatch_leaves_the_graph_usable(ranks):
    with _graph(ranks).experimental_compile() as compiled:
        with pytest.raises(TaskError, match="bring different tensors"):
            runtime.get(compiled.execute("shape"))
        assert runtime.get(compiled.execute(4)) == [("cuda", 3.0)] * 2


def test_nccl_itself_works_for_ranks_on_one_gpu(ranks):
    """The NCCL constructor of the group, reached past the choice of backend (which takes gloo)."""
    from collective.ops import AllReduce

    class ForcedNccl(AllReduce):
        def backend(self, actors):
            return "nccl"

    from compiled_dag.collective_node import bind_collective

    with InputNode() as inp:
        nodes = bind_collective(ForcedNccl(), [rank.gradient.bind(inp) for rank in ranks])
        dag = MultiOutputNode([r.first.bind(t) for r, t in zip(ranks, nodes, strict=True)])
    with dag.experimental_compile() as compiled:
        assert runtime.get(compiled.execute(1000)) == [("cuda", 3.0)] * 2
