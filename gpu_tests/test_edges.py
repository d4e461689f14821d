"""NCCL edges: right, and a peer that dies in them. Actors share one GPU: see `crew.loopback`.

Where they do, the choice would be a ring in GPU memory. So it is made here, in its place.
"""

from __future__ import annotations

import pytest

import runtime
from compiled_dag import GraphActorDiedError, InputNode
from compiled_dag.passes import transports
from gpu_tests.crew import DEVICE, ON_GPU, Stage, loopback
from gpu_tests.test_nccl import ABORTED_S
from gpu_tests.test_rings import expect, expect_anywhere, flat, get, hop
from tests.live import wait_until

pytestmark = [
    pytest.mark.proc,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:num_gpus="),
    pytest.mark.skipif(not ON_GPU, reason="NCCL is for GPUs"),
]
SIZES = (3, 0, 70_000, 5, 4_000_000, 1)


@pytest.fixture
def start(no_leaks, monkeypatch):
    def start(count):
        monkeypatch.setattr(transports, "_ring_of", lambda reach, gpus: ("nccl", "made to"))
        runtime.init(num_gpus=count + 1)
        actor = runtime.remote(Stage)
        return [
            actor.options(num_gpus=1, runtime_env=loopback(rank)).remote() for rank in range(count)
        ]

    yield start
    runtime.shutdown()


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("overlaps", [False, True])
def test_tensors_arrive_as_they_were_sent(start, readers, overlaps) -> None:
    writer, *others = start(1 + readers)
    output = hop(writer, *others)
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        expect(graph, "nccl", "made to")
        refs = [graph.execute(n) for n in SIZES]
        for n, found in zip(SIZES, map(get, refs), strict=True):
            assert found == [flat(n)] * readers


def test_tensors_anywhere_in_a_value_arrive(start) -> None:
    expect_anywhere(*start(2))


def test_to_and_fro_with_many_under_way(start) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = first.make_slowly.bind(inp, 2)
        for actor in (second, first, second):
            value = actor.add.bind(value.with_tensor_transport("nccl"))
        output = first.show.bind(value.with_tensor_transport("nccl"))
    with output.experimental_compile() as graph:
        refs = [graph.execute(n) for n in range(10)]
        for n, found in enumerate(map(get, refs)):
            assert found == (DEVICE, [float(number + 3) for number in range(n)])


def test_what_readers_get_is_their_own_and_what_is_sent_may_be_changed(start) -> None:
    writer, *readers = start(3)
    with hop(writer, *readers, then="keep").experimental_compile() as graph:
        for _ in range(20):
            get(graph.execute(4))
    kept = get([reader.show_kept.remote() for reader in readers])
    assert kept == [[(DEVICE, [100.0, 101.0, 102.0, 103.0])] * 20] * 2


@pytest.mark.parametrize("victim", [0, 1])
def test_who_waits_in_cuda_for_a_dead_peer_is_free_soon(start, victim) -> None:
    """The victim's half of the transfer is enqueued too, behind a long kernel; so it dies in it."""
    actors = start(2)
    waits, dies = actors[1 - victim], actors[victim]
    with InputNode() as inp:
        value = waits.make.bind(inp).with_tensor_transport("nccl")
        back = dies.add_slowly.bind(value, 20_000).with_tensor_transport("nccl")
        output = waits.total.bind(back)
    graph = output.experimental_compile()
    refs = graph.execute(100_000)
    wait_until(lambda: "is in Stage.total" in str(graph.hang_report()))
    runtime.kill(dies)
    assert runtime.get(waits.works.remote(), timeout=ABORTED_S)
    with pytest.raises(GraphActorDiedError):
        get(refs)
    graph.teardown()
