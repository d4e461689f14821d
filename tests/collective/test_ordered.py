"""MAX and MIN of NaN: one rule on every backend of CPUs, NumPy's."""

from __future__ import annotations

import pytest
import torch

import collective
from collective import ReduceOp
from collective.ordered import ordered
from tests.collective.members import members  # noqa: F401  a fixture

NAN, INF = float("nan"), float("inf")
ROWS = [
    [NAN, 1.0, 2.0, -NAN, -INF, INF, 0.0, -3.0, NAN],
    [1.0, NAN, 2.5, INF, NAN, -INF, -1.0, -4.0, -NAN],
    [INF, 2.0, -NAN, -INF, 1.0, -2.0, 5.0, -3.5, NAN],
]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OPS = {ReduceOp.MAX: torch.amax, ReduceOp.MIN: torch.amin}


def assert_same(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_nan_on_any_rank_comes_out_on_all(members, backend, dtype) -> None:  # noqa: F811
    session = members(3, backend=backend)
    rows = torch.tensor(ROWS, dtype=dtype)
    for op, reduce in OPS.items():
        expected = reduce(rows, 0)

        def use(rank, op=op, expected=expected):
            whole, onto_one = rows[rank].clone(), rows[rank].clone()
            collective.allreduce(whole, op=op)
            assert_same(whole, expected)
            collective.reduce(onto_one, 1, op=op)
            assert_same(onto_one, expected if rank == 1 else rows[rank])
            part = torch.empty(3, dtype=dtype)
            collective.reducescatter(part, list(rows[rank].chunk(3)), op=op)
            assert_same(part, expected.chunk(3)[rank])

        assert session.run_all(use) == [None] * 3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_integers_in_place_of_numbers_are_in_their_order_and_go_back(op, dtype) -> None:
    numbers = torch.tensor([-INF, -3.0, -1e-6, 0.0, 1e-6, 2.0, INF, NAN, -NAN], dtype=dtype)
    memory = numbers.clone()
    keys, finish = ordered(memory, op.value, lambda of: torch.empty(9, dtype=of))
    order = keys.tolist()
    finite, nan = order[:7], order[7:]
    assert finite == sorted(set(finite))
    assert min(nan) > max(finite) if op is ReduceOp.MAX else max(nan) < min(finite)
    finish()
    assert_same(memory, numbers)
