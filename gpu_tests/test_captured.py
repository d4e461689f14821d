"""Methods captured as CUDA graphs, really: `tests.cuda.test_capturing` has when that is done."""

from __future__ import annotations

import logging

import pytest

from compiled_dag import InputNode
from compiled_dag.cuda.capturing import WARM, Capturing
from gpu_tests.crew import DEVICE, ON_GPU, Stage
from gpu_tests.test_rings import get

pytestmark = [
    pytest.mark.filterwarnings("ignore:num_gpus="),
    pytest.mark.skipif(not ON_GPU, reason="only a GPU has CUDA graphs"),
]
N = 256


def captured(method, *, copies=True):
    import torch

    from compiled_dag.cuda.device import open_device

    return Capturing(method, open_device(), "Stage.mix", torch.cuda.synchronize, copies=copies)


def made(n=N):
    import torch

    return torch.randn(n, device=DEVICE)


@pytest.mark.parametrize("copies", [False, True])
def test_what_is_played_is_what_the_method_does(copies) -> None:
    import torch

    stage, plain = Stage(), Stage()
    mix = captured(stage.mix, copies=copies)
    kept = []
    for _ in range(20):
        value = made()
        found, expected = mix(value), plain.mix(value)
        assert torch.allclose(found, expected)
        kept.append((found, expected))
    assert stage.runs == WARM + 1
    assert not copies or all(torch.allclose(one, other) for one, other in kept)
    mix.close()
    assert torch.allclose(mix(value), plain.mix(value))


def test_other_shapes_and_what_cannot_be_captured_run_as_they_are(caplog) -> None:
    import torch

    stage, plain = Stage(), Stage()
    mix, look = captured(stage.mix), captured(Stage().mix_and_look)
    before = torch.cuda.current_stream()
    for n in (*[N] * 6, 5, N, 7, N):
        value = made(n)
        assert torch.allclose(mix(value), plain.mix(value))
        assert torch.allclose(look(value), plain.mix_and_look(value))
    assert stage.runs == WARM + 1 + 2
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(told) == 2
    assert torch.cuda.current_stream() == before
    torch.cuda.empty_cache()  # torch 2.11 fails here if it takes the capture for unfinished
    mix.close()
    look.close()


def test_the_memory_of_a_captured_method_is_given_back() -> None:
    import torch

    mix, value = captured(Stage().mix), made(2048)
    before = torch.cuda.memory_allocated()
    for _ in range(6):
        mix(value)
    mix.close()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_a_captured_stage_between_channels(start) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport("accelerator")
        mixed = second.mix.options(cuda_graph=True).bind(value)
        output = first.show.bind(mixed.with_tensor_transport("accelerator"))
    with output.experimental_compile() as graph:
        (found,) = graph.explain().cuda_graphs
        assert not found.why_not
        refs = [graph.execute(n) for n in [N] * 10]
        results = [get(ref) for ref in refs]
        expected = get(first.show.remote(first.mix.remote(first.make.remote(N))))
        for device, numbers in results:
            assert device == DEVICE
            assert numbers == pytest.approx(expected[1], rel=1e-4)
    assert get(second.count.remote()) == WARM + 1
