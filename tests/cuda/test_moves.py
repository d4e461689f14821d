"""Whole graphs between actors with a GPU (in host memory: `fake`) and actors without one."""

from __future__ import annotations

import re

import pytest

import runtime
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode, TaskError
from tests.cuda.crew import Stage
from tests.cuda.graphs import edges, get
from tests.live import LONG_S

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.proc, pytest.mark.filterwarnings("ignore:num_gpus=")]
SIZES = (5, 3, 70_000, 4, 300_000, 0, 7, 2, 40_000, 900)


@pytest.fixture
def start_mixed(start):
    """Starts actors with GPUs, and others without."""

    def start_mixed(with_gpu, without, **options):
        made = start(with_gpu, **options)
        return [*made, *(runtime.remote(Stage).remote() for _ in range(without))]

    return start_mixed


def numbers(n, add=0, where="gpu"):
    return (where, [number + add for number in range(n)])


def move(node, device, **options):
    return node.with_tensor_transport(device=device, **options)


@pytest.mark.parametrize("overlaps", [False, True])
def test_tensors_move_from_the_host_to_gpus_and_back(start_mixed, overlaps) -> None:
    second, third, first, last = start_mixed(2, 2, settings="pause_us=1000")
    with InputNode() as inp:
        value = move(first.host_numbers.bind(inp), "cuda")
        added = move(second.add.bind(value, 10), "cpu")
        output = MultiOutputNode(
            [third.show.bind(value), last.show.bind(added), first.show.bind(added)]
        )
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        to_gpu = edges(graph)["Stage.host_numbers", "Stage.add"]
        assert to_gpu.transport == "shm"
        assert "Stage(2) copies from pinned memory to its GPU" in to_gpu.why
        to_host = edges(graph)["Stage.add", "Stage.show"]
        assert to_host.why.endswith("Stage(1) copies from its GPU into pinned memory")
        for _ in range(3):
            refs = [graph.execute(n) for n in SIZES]
            for n, found in zip(SIZES, map(get, refs), strict=True):
                shown = numbers(n, 10, "cpu" if n else "gpu")
                assert found == [numbers(n), shown, shown]


def test_the_driver_feeds_gpus_and_reads_what_they_make(start) -> None:
    first, second = start(2, settings="pause_us=1000")
    with InputNode() as inp:
        value = move(inp, "cuda")
        added = move(first.add.bind(value, 1), "cpu")
        output = MultiOutputNode([added, second.show.bind(value)])
    with output.experimental_compile() as graph:
        why = edges(graph)["input", "Stage.add"].why
        assert "the driver takes part; Stage(1) copies from pinned memory to its GPU" in why
        for n in SIZES:
            tensor, shown = get(graph.execute(torch.arange(n, dtype=torch.int32)))
            assert torch.equal(tensor, torch.arange(n, dtype=torch.int32) + 1)
            assert shown == numbers(n)
        parts = {"a": [torch.ones(20_000), torch.zeros(3)], "b": "text"}
    with InputNode() as inp:
        output = move(first.same.bind(move(inp, "cuda")), "cpu")
    with output.experimental_compile() as graph:
        for _ in range(8):
            found = get(graph.execute(parts))
            assert found["b"] == "text"
            assert all(map(torch.equal, found["a"], parts["a"]))


def test_default_leaves_tensors_on_the_kind_of_device_they_come_from(start_mixed) -> None:
    first, second, third, plain = start_mixed(3, 1)
    with InputNode() as inp:
        value = first.make_many.bind(inp).with_tensor_transport("shm")
        output = MultiOutputNode([second.show.bind(value), third.show.bind(value)])
    with output.experimental_compile() as graph:
        why = edges(graph)["Stage.make_many", "Stage.show"].why
        assert "Stage(1) copies from its GPU into pinned memory" in why
        assert "Stage(2) copies from pinned memory to its GPU" in why
        for n in SIZES:
            expected = {
                "a": [numbers(n), "text"], "b": (numbers(n + 1), n), "cpu": ("cpu", [1.0] * 3)
            }  # fmt: skip
            found = get(graph.execute(n))
            assert found[0] == found[1]
            assert found[0] == {**expected, "b": list(expected["b"])}
    with InputNode() as inp:
        value = plain.host_numbers.bind(inp).with_tensor_transport("shm")
        output = MultiOutputNode([second.keep_host.bind(value), first.keep_host.bind(value)])
    with output.experimental_compile() as graph:
        for n in (5, 40_000, 100_000):
            assert get(graph.execute(n)) == [numbers(n, 1, "cpu")] * 2


def test_what_is_read_is_the_readers_own(start_mixed) -> None:
    second, third, first = start_mixed(2, 1, settings="pause_us=1000")
    with InputNode() as inp:
        value = move(first.host_numbers.bind(inp), "cuda")
        kept = [reader.keep.bind(value) for reader in (second, third)]
        output = MultiOutputNode([move(one, "cpu") for one in kept])
    with output.experimental_compile() as graph:
        for n in (4, 50_000, 4, 50_000, 60_000, 4, 50_000, 50_000, 50_000, 50_000):
            expected = torch.arange(n, dtype=torch.int32) + 100
            assert all(torch.equal(one, expected) for one in get(graph.execute(n)))


@pytest.mark.parametrize("settings", ["no_pinning", "no_memory,no_pinning,no_events"])
def test_where_nothing_can_be_pinned_torch_copies_and_explain_says_why(
    start_mixed, settings
) -> None:
    second, first = start_mixed(1, 1, settings=settings)
    with InputNode() as inp:
        value = move(first.host_numbers.bind(inp), "cuda")
        output = first.same.bind(move(second.same.bind(value), "cpu"))
    with output.experimental_compile() as graph:
        why = edges(graph)["Stage.host_numbers", "Stage.same"].why
        assert re.search(
            r"torch copies for Stage\(1\), which failed at pinning memory: cudaError801", why
        )
        with pytest.raises(TaskError, match="is hinted device='cuda', and .* sees no GPU"):
            get(graph.execute(5))  # these GPUs are none of torch's


def test_errors_travel_and_the_graph_goes_on(start_mixed) -> None:
    second, first = start_mixed(1, 1)
    with InputNode() as inp:
        value = move(first.host_numbers.bind(inp), "cuda", _static_shape=True)
        output = first.show.bind(move(second.add.bind(value), "cpu"))
    with output.experimental_compile() as graph:
        assert get(graph.execute(70_000)) == numbers(70_000, 1, "cpu")
        with pytest.raises(TaskError, match="_static_shape=True: expected 1 tensor"):
            get(graph.execute(3))
        with pytest.raises(TypeError):
            get(graph.execute("no number"))
        assert get(graph.execute(70_000)) == numbers(70_000, 1, "cpu")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_leaves_the_others_usable(start_mixed, victim) -> None:
    second, first = start_mixed(1, 1, settings="pause_us=3000")
    with InputNode() as inp:
        value = first.host_numbers.bind(inp[0], dies=inp[1] if victim else False)
        value = second.work.bind(move(value, "cuda"), dies=inp[1] if not victim else False)
        output = first.show.bind(move(value, "cpu"))
    graph = output.experimental_compile()
    refs = [graph.execute(100_000, n == 3) for n in range(8)]
    for ref in refs[4:]:
        with pytest.raises(GraphActorDiedError, match=r"of execution 3"):
            ref.get(timeout=LONG_S)
    graph.teardown()
    (left,) = [stage for number, stage in enumerate((second, first)) if number != victim]
    with InputNode() as inp:
        output = move(left.same.bind(move(inp, "cuda" if victim else "cpu")), "cpu")
    with output.experimental_compile() as again:
        sent = torch.arange(40_000)
        assert torch.equal(get(again.execute(sent)), sent)
