"""Tensors that `device=` moves between GPUs and the host: what must hold on a real device."""

from __future__ import annotations

import pytest
import torch

import runtime
from compiled_dag import InputNode, MultiOutputNode
from gpu_tests.crew import DEVICE, ON_GPU, Stage
from tests.live import LONG_S

pytestmark = [
    pytest.mark.proc,
    pytest.mark.filterwarnings("ignore:num_gpus=", "ignore:the GPUs are fake"),
]


@pytest.fixture(autouse=True)
def session_with_gpus(no_leaks):
    runtime.init(num_gpus=2)
    yield
    runtime.shutdown()


class Plain:
    """An actor without a GPU."""

    def same(self, value):
        return value

    def total(self, tensor):
        return tensor.device.type, float(tensor.double().sum())


def stages(count):
    actor = runtime.remote(Stage).options(num_gpus=1)
    return [actor.remote() for _ in range(count)]


SIZES = (5, 1_000_000, 0, 3, 4_000_000, 20_000, 100_000, 7)


def get(ref):
    return runtime.get(ref, timeout=LONG_S)


def expect_pinned(graph, count):
    """Check that ends with GPUs copy by themselves."""
    why = "\n".join(edge.why for edge in graph.explain().edges)
    assert not ON_GPU or why.count("pinned memory") == count, why


@pytest.mark.parametrize("overlaps", [False, True])
def test_tensors_move_from_the_host_to_a_gpu_and_back(overlaps):
    second, third = stages(2)
    first = runtime.remote(Plain).remote()
    with InputNode() as inp:
        value = second.make.bind(inp).with_tensor_transport(device="cpu")
        onto = third.add.bind(first.same.bind(value).with_tensor_transport(device=DEVICE))
        output = first.total.bind(onto.with_tensor_transport(device="cpu"))
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        expect_pinned(graph, 3)
        for _ in range(5):
            refs = [graph.execute(n) for n in SIZES]
            for n, ref in zip(SIZES, refs, strict=True):
                assert get(ref) == ("cpu", pytest.approx(float(n * (n + 1) // 2), rel=1e-3))


def test_the_driver_feeds_a_gpu_and_reads_what_it_makes():
    (actor,) = stages(1)
    with InputNode() as inp:
        value = actor.add.bind(inp.with_tensor_transport(device=DEVICE))
        output = MultiOutputNode([value.with_tensor_transport(device="cpu")])
    with output.experimental_compile() as graph:
        expect_pinned(graph, 2)
        for n in SIZES:
            sent = torch.arange(n, dtype=torch.float32)
            (ref,) = graph.execute(sent)
            found = get(ref)
            assert found.device.type == "cpu"
            assert torch.equal(found, sent + 1)


@pytest.mark.skipif(not ON_GPU, reason="there are no copies to look at")
def test_moves_are_copies_from_and_to_pinned_memory():
    (actor,) = stages(1)
    with InputNode() as inp:
        value = actor.add.bind(inp.with_tensor_transport(device="cuda"))
        output = value.with_tensor_transport(device="cpu")
    with output.experimental_compile() as graph:
        sent = torch.ones(1_000_000)
        for _ in range(8):
            get(graph.execute(sent))
        get(actor.profile.remote())
        for _ in range(4):
            assert torch.equal(get(graph.execute(sent)), sent + 1)
        names = "\n".join(get(actor.calls.remote()))
    assert "Pageable" not in names, names
    assert "Pinned -> Device" in names, names
    assert "Device -> Pinned" in names, names
