from __future__ import annotations

import gc

import pytest
import torch

from collective import warm_memory
from collective.warm_memory import WarmMemory
from compiled_dag.channel.warm import LARGE_BYTES

LARGE = LARGE_BYTES // 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2000, 3, 400)])
def test_memory_is_as_asked_for_and_on_a_line(shape, dtype) -> None:
    tensor = WarmMemory().empty(shape, dtype)
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)
    assert tensor.is_contiguous()
    tensor.fill_(1)
    if tensor.numel():
        assert tensor.data_ptr() % 64 == 0
    assert bool((tensor == 1).all())


def test_what_nobody_has_any_more_is_taken_again_and_nothing_else() -> None:
    memory = WarmMemory()
    first = memory.empty((LARGE,), torch.float32)
    second = memory.empty((LARGE,), torch.float32)
    place, kept = first.data_ptr(), first[5:].view(-1, 1)
    assert second.data_ptr() != place
    del first
    assert memory.empty((LARGE,), torch.float32).data_ptr() != place  # a view of it is left
    del kept
    assert memory.empty((LARGE + 1,), torch.float32).data_ptr() != place  # of another size
    assert memory.empty((LARGE // 2,), torch.float64).data_ptr() == place


def test_only_so_much_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(warm_memory, "KEPT_BYTES", 3 * LARGE_BYTES)
    memory = WarmMemory()
    held = [memory.empty((LARGE,), torch.float32) for _ in range(10)]
    del held
    again = memory.empty((2 * LARGE,), torch.float32)
    assert len(memory._bytes) == 3
    assert again.numel() == 2 * LARGE
    memory.close()
    assert len(memory._bytes) == 0


def test_results_outlive_the_group() -> None:
    memory = WarmMemory()
    tensor = memory.empty((LARGE,), torch.float32).fill_(7)
    memory.close()
    del memory
    gc.collect()
    assert bool((tensor == 7).all())
    tensor.requires_grad_()
    (tensor * 2).sum().backward()
    assert bool((tensor.grad == 2).all())
