"""NCCL edges: right, and a peer that dies in them. Actors share one GPU: see `crew.loopback`.

Where they do, the choice would be a ring in GPU memory. So it is made here, in its place.
"""

from __future__ import annotations

import pytest

import runtime
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode
from compiled_dag.passes import transports
from gpu_tests.crew import DEVICE, ON_GPU, Stage, loopback
from gpu_tests.test_nccl import ABORTED_S
from gpu_tests.test_rings import expect, expect_anywhere, flat, get, hop
from tests.live import wait_until

pytestmark = [
    pytest.mark.proc,
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


@pytest.mark.parametrize("overlaps", [False, True])
def test_to_and_fro_with_many_under_way(start, overlaps) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = first.make_slowly.bind(inp, 2)
        for actor in (second, first, second):
            value = actor.add.bind(value.with_tensor_transport("nccl"))
        output = first.show.bind(value.with_tensor_transport("nccl"))
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
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


@pytest.mark.parametrize("overlaps", [False, True])
def test_values_of_one_call_arrive_in_one_operation(start, overlaps) -> None:
    writer, *readers = start(3)
    with InputNode() as inp:
        both = writer.make_two.options(num_returns=2).bind(inp)
        one, other = (value.with_tensor_transport("nccl") for value in both)
        shown = [[r.show.bind(r.add.bind(one)), r.show.bind(other)] for r in readers]
        output = MultiOutputNode([node for nodes in shown for node in nodes])
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        assert "make_two[0]#2, Stage.make_two[1]#3" in str(graph.memory())
        refs = [graph.execute(n) for n in SIZES[:4]]
        for n, found in zip(SIZES, map(get, refs), strict=False):
            value = (DEVICE, [float(number + 1) for number in range(n)])
            assert found == [value, found[1]] * 2
            assert len(found[1][1]) == n + 1


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_is_changed_in_place_arrives_as_each_call_returned_it(start, overlaps) -> None:
    writer, reader = start(2)
    output = hop(writer, reader, method="count_up", then="put_away")
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        for ref in [graph.execute(100_000) for _ in range(8)]:
            get(ref)
    for number, (_, found) in enumerate(get(reader.show_kept.remote()), 1):
        assert set(found) == {number}


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_is_under_way_at_the_end_of_a_graph_arrives(start, overlaps) -> None:
    """The driver has its results long before the GPU is done."""
    writer, reader = start(2)
    with InputNode() as inp:
        value = writer.make_slowly.bind(inp, 200).with_tensor_transport("nccl")
        output = reader.put_away.bind(value)
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        for ref in [graph.execute(n) for n in (1000, 2000, 3000)]:
            get(ref)
    found = [numbers for _, numbers in get(reader.show_kept.remote())]
    assert found == [list(map(float, range(n))) for n in (1000, 2000, 3000)]


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("victim", [0, 1])
def test_who_waits_in_cuda_for_a_dead_peer_is_free_soon(start, victim, overlaps) -> None:
    """The victim's half of the transfer is enqueued too, behind a long kernel; so it dies in it."""
    actors = start(2)
    waits, dies = actors[1 - victim], actors[victim]
    with InputNode() as inp:
        value = waits.make.bind(inp).with_tensor_transport("nccl")
        back = dies.add_slowly.bind(value, 20_000).with_tensor_transport("nccl")
        output = waits.total.bind(back)
    graph = output.experimental_compile(_overlap_gpu_communication=overlaps)
    refs = graph.execute(100_000)
    wait_until(lambda: "is in Stage.total" in str(graph.hang_report()))
    runtime.kill(dies)
    assert runtime.get(waits.works.remote(), timeout=ABORTED_S)
    with pytest.raises(GraphActorDiedError):
        get(refs)
    graph.teardown()
