"""Collectives of actors that share a GPU, in each other's memory (`collective.cuda_group`)."""

from __future__ import annotations

import functools

import pytest
import torch

import collective
import runtime
from collective import ReduceOp
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode
from gpu_tests.crew import ON_GPU, waits_in
from gpu_tests.shared_ranks import DTYPES, GpuRank, brought

pytestmark = [pytest.mark.proc, pytest.mark.filterwarnings("ignore:num_gpus=")]

W = 3
LONG_S = 60
COMBINE = {
    "SUM": torch.add, "PRODUCT": torch.mul, "MAX": torch.maximum, "MIN": torch.minimum,
    "BAND": torch.bitwise_and, "BOR": torch.bitwise_or, "BXOR": torch.bitwise_xor,
}  # fmt: skip


@pytest.fixture
def start(no_leaks):
    """Starts ranks."""
    runtime.init(num_gpus=W)  # logical ones, mapped onto what is there

    def start():
        kind = runtime.remote(GpuRank).options(num_gpus=1)
        return [kind.remote(rank) for rank in range(W)]

    yield start
    runtime.shutdown()


@pytest.fixture(autouse=True)
def one_gpu():
    if ON_GPU and torch.cuda.device_count() != 1:
        pytest.skip("several GPUs are visible, and actors would have one each: show one only")


def draw(ranks, name, show="show", **options):
    with InputNode() as inp:
        made = [rank.make.bind(inp[0], inp[1]) for rank in ranks]
        results = getattr(collective, name).bind(made, **options)
        nodes = results if isinstance(results, list) else [results]
        owners = ranks if len(nodes) > 1 else [ranks[options.get("dst_rank", 0)]]
        shown = [getattr(r, show).bind(one) for r, one in zip(owners, nodes, strict=True)]
        return MultiOutputNode(shown)


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def test_it_is_what_actors_on_one_gpu_get(start):
    ranks = start()
    with draw(ranks, "allreduce").experimental_compile() as graph:
        (one,) = graph.explain().collectives
        assert one.backend == ("cuda_ipc" if ON_GPU else "gloo"), one.why


@pytest.mark.parametrize("op", COMBINE)
def test_reductions_are_torchs(start, op):
    ranks = start()
    with draw(ranks, "allreduce", op=ReduceOp[op]).experimental_compile() as graph:
        for dtype in DTYPES:
            bits = op.startswith("B")
            if ("float" in dtype and bits) or ("complex" in dtype and op != "SUM"):
                continue
            if not ON_GPU and dtype == "int16":
                continue  # gloo has none
            for shape in ((3,), (1000, 1001), (5, 2)):
                parts = [brought(rank, shape, dtype) for rank in range(W)]
                expected = functools.reduce(COMBINE[op], parts)
                for found in get(graph.execute(shape, dtype)):
                    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "name", ["allgather", "gather", "broadcast", "scatter", "all_to_all", "reducescatter", "reduce"]
)
def test_other_operations_are_right(start, name):
    ranks = start()
    with draw(ranks, name).experimental_compile() as graph:
        for shape in ((6, 2), (3,), (999, 501), (3, 1)):
            parts = [brought(rank, shape, "float32") for rank in range(W)]
            pieces = [list(part.chunk(W)) for part in parts]
            total = parts[0] + parts[1] + parts[2]
            expected = {
                "allgather": [torch.cat(parts)] * W,
                "gather": [torch.cat(parts)],
                "broadcast": [parts[0]] * W,
                "scatter": pieces[0],
                "all_to_all": [torch.cat([of[rank] for of in pieces]) for rank in range(W)],
                "reducescatter": list(total.chunk(W)),
                "reduce": [total],
            }[name]
            for found, wanted in zip(get(graph.execute(shape, "float32")), expected, strict=True):
                assert torch.equal(found, wanted)


def test_many_in_a_row_of_sizes_that_grow(start):
    ranks = start()
    collective.create_collective_group(ranks, name="row")
    count = 10_000 if ON_GPU else 100
    lengths = [1, 1000, 33, 300_000, 7, 2_000_000, 5, 5, 10_000]
    assert get([rank.reduce_often.remote(count, lengths, "row") for rank in ranks]) == [0] * W


@pytest.mark.skipif(not ON_GPU, reason="the CPU has no streams")
def test_operations_on_threads_are_on_the_callers_stream(start):
    ranks = start()
    collective.create_collective_group(ranks, "cuda_ipc", name="aside")
    assert get([rank.reduce_aside.remote(50, "aside") for rank in ranks]) == [0] * W


@pytest.mark.skipif(not ON_GPU, reason="what the host waits for is seen on a GPU only")
def test_the_host_waits_for_no_gpu(start):
    ranks = start()
    collective.create_collective_group(ranks, "cuda_ipc", name="seen")
    own, calls = (get([rank.profiled.remote(n, "seen") for rank in ranks]) for n in (0, 100))
    assert [waits_in(one) for one in calls] == [waits_in(one) for one in own]
    assert all(one["cudaEventRecord"] >= 200 for one in calls)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("victim", [0, W - 1])
def test_a_death_leaves_the_others_and_their_gpu_usable(start, victim, inside):
    if inside and not ON_GPU:
        pytest.skip("the GPU is what the others wait with")
    ranks = start()
    with InputNode() as inp:
        made = [
            rank.die.bind(rank.make.bind(inp[0], "float32"), inp[1] if n == victim else False)
            for n, rank in enumerate(ranks)
        ]
        results = collective.allreduce.bind(made)
        output = MultiOutputNode([r.touch.bind(one) for r, one in zip(ranks, results, strict=True)])
    graph = output.experimental_compile()
    get(graph.execute((1000,), False))
    if inside:
        get(ranks[victim].die_in_the_next.remote())
    refs = graph.execute((1000,), not inside)
    with pytest.raises(GraphActorDiedError):
        refs[victim].get(timeout=LONG_S)
    if not inside:
        for ref in refs:
            with pytest.raises(GraphActorDiedError):
                ref.get(timeout=LONG_S)
    graph.teardown()
    left = [rank for number, rank in enumerate(ranks) if number != victim]
    assert get([rank.works.remote() for rank in left]) == [True] * (W - 1)
    with draw(left, "allreduce").experimental_compile() as again:
        for found in get(again.execute((5,), "float32")):
            assert found.shape == (5,)
