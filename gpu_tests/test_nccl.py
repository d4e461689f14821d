"""allreduce over NCCL, and a rank that dies in it. Both ranks are on one GPU: `crew.loopback`."""

from __future__ import annotations

import re

import pytest

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode, TaskError
from gpu_tests.crew import busy, loopback
from tests.live import wait_until

pytestmark = [pytest.mark.proc, pytest.mark.filterwarnings("ignore:num_gpus=")]
ABORTED_S = 5.0
"""A rank whose peer has died is free again by then, whatever its GPU waited for."""


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

    def late(self, tensor, milliseconds):
        busy(milliseconds)
        return tensor

    def works(self):
        import torch

        return float(torch.ones(1000, device="cuda").sum()) == 1000


@pytest.fixture
def ranks(no_leaks):
    # Two logical GPUs, mapped modulo onto what is there.
    runtime.init(num_gpus=2)
    try:
        yield [
            runtime.remote(Rank)
            .options(
                num_gpus=1,
                runtime_env=loopback(rank),
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


class OnTheSecond(Rank):
    """An actor with two GPUs, whose code makes the second one current."""

    def __init__(self, rank):
        import torch

        torch.cuda.set_device(1)
        super().__init__(rank)

    def gradient(self, n):
        return super().gradient(n).to(f"cuda:{n % 2}")

    def first(self, tensor):
        return tensor.device.index, float(tensor[0])


def _num_gpus():
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


@pytest.mark.skipif(_num_gpus() < 4, reason="it takes four GPUs")
def test_ranks_meet_on_their_first_gpus_whatever_is_current(no_leaks):
    runtime.init(num_gpus=4)
    try:
        actor = runtime.remote(OnTheSecond).options(num_gpus=2)
        with _graph([actor.remote(rank) for rank in range(2)]).experimental_compile() as compiled:
            (found,) = compiled.explain().collectives
            assert found.backend == "nccl"
            for n in (1000, 1001):
                assert runtime.get(compiled.execute(n)) == [(n % 2, 3.0)] * 2
    finally:
        runtime.shutdown()


@pytest.fixture
def forced(monkeypatch):
    """Has collectives run on NCCL, past the choice of backend, which takes another on one GPU."""
    monkeypatch.setattr("collective.choice.choose_backend", lambda actors: "nccl")


@pytest.mark.usefixtures("forced")
def test_nccl_itself_works_for_ranks_on_one_gpu(ranks):
    with _graph(ranks).experimental_compile() as compiled:
        (found,) = compiled.explain().collectives
        assert found.backend == "nccl"
        for n in (1000, 1, 1 << 20):
            assert runtime.get(compiled.execute(n)) == [("cuda", 3.0)] * 2


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_waits_in_cuda_for_a_dead_one_is_free_soon(ranks, victim):
    """The other rank has begun the operation too, behind a long kernel, and dies before it."""
    with InputNode() as inp:
        parts = [rank.gradient.bind(inp) for rank in ranks]
        parts[victim] = ranks[victim].late.bind(parts[victim], 20_000)
        sums = allreduce.bind(parts)
        dag = MultiOutputNode([r.first.bind(t) for r, t in zip(ranks, sums, strict=True)])
    compiled = dag.experimental_compile()
    refs = compiled.execute(1000)

    def report():
        return str(compiled.hang_report())

    wait_until(
        lambda: {"Rank(1)", "Rank(2)"} <= set(re.findall(r"(\S+) is in Rank.first", report()))
    )
    runtime.kill(ranks[victim])
    left = ranks[1 - victim].works.remote()
    assert runtime.get(left, timeout=ABORTED_S)
    with pytest.raises(GraphActorDiedError):
        runtime.get(refs)
    compiled.teardown()
