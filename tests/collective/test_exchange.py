"""Every operation, dtype and shape over ranks on threads, against numpy. See also `test_shm`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collective import exchange, kinds
from collective.arithmetic import NUMPY, TORCH
from tests.collective.oracle import BITWISE, COMPLEX, DTYPES, FLOATS, expected, numbers, small
from tests.collective.threads import ThreadGroup

KINDS = [
    *(kinds.ALLREDUCE, kinds.REDUCE, kinds.REDUCESCATTER, kinds.ALLGATHER, kinds.GATHER),
    *(kinds.ALL_TO_ALL, kinds.BROADCAST, kinds.SCATTER),
]


def ops_of(dtype: str) -> list[str]:
    if dtype in COMPLEX:
        return ["SUM", "PRODUCT"]
    if dtype in FLOATS:
        return ["SUM", "PRODUCT", "MAX", "MIN"]
    return ["SUM", "PRODUCT", "MAX", "MIN", *BITWISE]


def check(kind, tensors, results, op, root) -> None:
    arrays = [numbers(tensor) for tensor in tensors]
    for found, right in zip(results, expected(kind, op, root, arrays), strict=True):
        if right is None:
            assert found is None
            continue
        assert found.dtype == tensors[0].dtype
        assert found.shape == right.shape
        np.testing.assert_array_equal(numbers(found), right)


@pytest.fixture(autouse=True)
def _slices_of_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have more than two ranks combine slices whenever a tensor has more than 1 KiB."""
    monkeypatch.setattr(exchange, "_SLICED_BYTES", 1024)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_and_size_is_numpys(world_size, dtype) -> None:
    group = ThreadGroup(world_size, 4096)
    shapes = [(world_size,), (3 * world_size, 2), (world_size, 0, 2), (19 * world_size, 33)]
    operations = [
        (kind, [small(shape, dtype, rank) for rank in range(world_size)], op, root)
        for kind in KINDS
        for shape in shapes
        for op in (ops_of(dtype) if kind.reduces else [None])
        for root in ({0, world_size - 1} if kind.root else {0})
    ]
    for (kind, tensors, op, root), results in zip(
        operations, group.run_all(operations), strict=True
    ):
        check(kind, tensors, results, op, root)


@settings(max_examples=60)
@given(data=st.data(), world_size=st.integers(1, 4), slot_bytes=st.sampled_from([4096, 16384]))
def test_operations_of_any_kind_and_size_may_follow_each_other(data, world_size, slot_bytes):
    lengths = st.one_of(st.integers(0, 5), st.integers(0, 6000))
    operations = []
    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(KINDS))
        dtype = data.draw(st.sampled_from(DTYPES))
        op = data.draw(st.sampled_from(ops_of(dtype))) if kind.reduces else None
        root = data.draw(st.integers(0, world_size - 1)) if kind.root else 0
        shape = (data.draw(lengths) * (world_size if kind.divides else 1),)
        operations.append((kind, [small(shape, dtype, r) for r in range(world_size)], op, root))
    group = ThreadGroup(world_size, slot_bytes)
    group.quick_ranks = data.draw(st.sets(st.integers(0, world_size - 1)))
    results = group.run_all(operations)
    for (kind, tensors, op, root), one in zip(operations, results, strict=True):
        check(kind, tensors, one, op, root)


@pytest.mark.parametrize("length", [1, 100, 5000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_all_ranks_have_the_same_bits(dtype, length) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(length).to(getattr(torch, dtype)) for _ in range(4)]
    first, *others = ThreadGroup(4, 4096).run(kinds.ALLREDUCE, tensors, "SUM")
    for other in others:
        assert torch.equal(first.view(torch.uint8), other.view(torch.uint8))
    in_order = ((tensors[0] + tensors[1]) + tensors[2]) + tensors[3]
    assert torch.equal(first, in_order)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_with_different_numbers_of_threads_have_the_same_bits(
    world_size, monkeypatch
) -> None:
    threads = itertools.cycle((1, 4))
    monkeypatch.setattr(torch, "get_num_threads", lambda: next(threads))
    torch.manual_seed(0)  # products of complex numbers: numpy and torch do not round alike
    tensors = [torch.randn(300_000, dtype=torch.complex64) for _ in range(world_size)]
    first, *others = ThreadGroup(world_size, 1 << 20).run(kinds.ALLREDUCE, tensors, "PRODUCT")
    for other in others:
        assert torch.equal(torch.view_as_real(first), torch.view_as_real(other))


@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_large_is_torchs_where_it_has_threads(threads, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    two, four = (ThreadGroup(size, 1 << 16).groups[0]._exchange for size in (2, 4))
    fast = NUMPY if threads == 1 else TORCH
    small, large = 1 << 18, 1 << 20  # floats
    assert four.arithmetic(("allreduce", "SUM", 0, torch.float32, small)) is NUMPY
    assert four.arithmetic(("allreduce", "SUM", 0, torch.float32, large)) is fast
    assert four.arithmetic(("allreduce", "SUM", 0, torch.bfloat16, large)) is TORCH
    assert two.arithmetic(("broadcast", None, 0, torch.float32, large)) is fast
    assert two.arithmetic(("reducescatter", "SUM", 0, torch.float32, large)) is fast
    # Both ranks add the same numbers, and neither knows the other's threads.
    assert two.arithmetic(("allreduce", "SUM", 0, torch.float32, large)) is TORCH
    assert two.arithmetic(("allreduce", "SUM", 0, torch.float32, small)) is NUMPY


def shortcut_for(tensor: torch.Tensor):
    return ThreadGroup(1, 4096).groups[0].shortcut("allreduce", tensor, "SUM", 0, (2, 3))


@pytest.mark.parametrize(
    "other",
    [
        np.ones((2, 3), np.float32),
        torch.ones(2, 3, dtype=torch.float64),
        torch.ones(3, 2),
        torch.ones(6),
        torch.ones(2, 3, requires_grad=True),
        torch.nn.Parameter(torch.ones(2, 3)),
        torch.ones(2, 3, dtype=torch.bfloat16),
        torch.complex(torch.ones(2, 3), torch.ones(2, 3)).conj().imag,
        torch.ones(2, 3).to_sparse(),
        torch.ones(2, 3, device="meta"),
    ],
    ids=lambda other: type(other).__name__,
)
def test_a_shortcut_leaves_what_looks_different_to_the_usual_way(other) -> None:
    shortcut = shortcut_for(torch.zeros(2, 3))
    assert shortcut.lay(torch.ones(2, 3))
    assert shortcut.lay(torch.ones(3, 2).T)
    assert not shortcut.lay(other)


def test_there_are_shortcuts_for_small_tensors_that_numpy_has() -> None:
    assert shortcut_for(torch.ones(2, 3)) is not None
    assert shortcut_for(torch.ones(2, 3, dtype=torch.bfloat16)) is None
    assert shortcut_for(torch.ones(200, 3000)) is None


@pytest.mark.parametrize(
    ("kind", "floats", "short"),
    [
        ("allreduce", 1 << 18, False),
        ("allreduce", 1 << 17, True),
        ("allgather", 1 << 17, False),
        ("allgather", 1 << 16, True),
    ],
)
def test_large_results_take_no_shortcut_but_warm_memory(kind, floats, short) -> None:
    group = ThreadGroup(2, 2 << 20).groups[0]
    shape = (floats if kind == "allreduce" else 2 * floats,)
    op = "SUM" if kind == "allreduce" else None
    assert (group.shortcut(kind, torch.ones(floats), op, 0, shape) is not None) == short


def test_an_average_by_a_shortcut_is_divided() -> None:
    group = ThreadGroup(2, 4096)
    group.quick_ranks = {0, 1}
    for dtype in (torch.float32, torch.float16, torch.complex64):
        tensors = [torch.full((2,), 1 + 4 * rank, dtype=dtype) for rank in range(2)]
        for result in group.run(kinds.ALLREDUCE, tensors, "AVG"):
            assert torch.equal(result, torch.full((2,), 3, dtype=dtype))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.reduces], ids=str)
@pytest.mark.parametrize("rows", [64, 256])
@pytest.mark.parametrize("quick", [set(), {0}, {0, 1}], ids=str)
def test_two_ranks_take_what_they_bring_from_where_it_is(kind, rows, quick) -> None:
    group = ThreadGroup(2, 1 << 16)
    group.quick_ranks = quick
    bases = [torch.arange(64.0 * rows).reshape(64, rows) % 7 + 3 * rank for rank in range(2)]
    for tensors in (bases, [base.T for base in bases]):
        for op in ("SUM", "MIN"):
            check(kind, tensors, group.run(kind, tensors, op, 1), op, 1)


VIEWS = {
    "transposed": lambda t: t.T,
    "strided": lambda t: t[:, ::2],
    "offset": lambda t: t[2:, 1:],
    "expanded": lambda t: t[0].expand(4, -1),
    "conjugate": lambda t: torch.complex(t, t).conj(),
    "negative": lambda t: torch.complex(t, t).conj().imag,
    "with a gradient": lambda t: t.clone().requires_grad_(),
    "0-dim": lambda t: t[1, 1],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("width", [60, 6000])
def test_tensors_may_have_any_strides_and_are_left_as_they_are(name, width) -> None:
    bases = [torch.arange(4.0 * width).reshape(4, width) % 7 + rank for rank in range(3)]
    copies = [base.clone() for base in bases]
    tensors = [VIEWS[name](base) for base in bases]
    for result in ThreadGroup(3, 4096).run(kinds.ALLREDUCE, tensors, "SUM"):
        assert torch.equal(result, sum(tensors).detach())
        assert not result.requires_grad
    assert all(torch.equal(*pair) for pair in zip(bases, copies, strict=True))


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_small_tensor_takes_one_meeting_and_a_large_one_a_meeting_a_piece(world_size) -> None:
    group = ThreadGroup(world_size, 4096)
    group.run(kinds.ALLREDUCE, [torch.ones(200)] * world_size, "SUM")
    assert {meetings.reached for meetings in group.meetings} == {1}
    group.run(kinds.ALLREDUCE, [torch.ones(4000)] * world_size, "SUM")
    pieces = 4 if world_size == 2 else 7  # six, and the results of the last
    assert {meetings.reached for meetings in group.meetings} == {1 + pieces}


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("length", [5, 500, 5000])
def test_the_result_may_be_the_memory_of_the_input(length, world_size) -> None:
    tensors = [small((length,), "float32", rank) for rank in range(world_size)]
    right = sum(tensors)
    group = ThreadGroup(world_size, 4096)
    group.run(kinds.ALLREDUCE, tensors, "SUM", into=tensors)
    assert all(torch.equal(tensor, right) for tensor in tensors)


def test_more_looks_than_are_remembered(monkeypatch) -> None:
    monkeypatch.setattr(exchange, "_MAX_PLANS", 4)
    group = ThreadGroup(2, 4096)
    for length in range(1, 20):
        tensors = [torch.full((length,), float(rank)) for rank in range(2)]
        for result in group.run(kinds.ALLREDUCE, tensors, "SUM"):
            assert torch.equal(result, torch.ones(length))
    assert all(len(one._exchange._plans) <= 4 for one in group.groups)
