"""The operations' rules, without tensors."""

from __future__ import annotations

import pytest

from collective import kinds

JOINED = [kinds.ALLGATHER, kinds.GATHER]
DIVIDED = [kinds.REDUCESCATTER, kinds.SCATTER, kinds.ALL_TO_ALL]


@pytest.mark.parametrize("kind", [*JOINED, *DIVIDED])
def test_a_tensor_without_dimensions_cannot_be_joined_or_divided(kind) -> None:
    assert "without dimensions" in kind.why_not((), 2)


@pytest.mark.parametrize("kind", [kinds.ALLREDUCE, kinds.BROADCAST, kinds.REDUCE, kinds.BARRIER])
def test_elsewhere_it_can(kind) -> None:
    assert kind.why_not((), 2) is None
    assert kind.part((), 2, 1) == ()


@pytest.mark.parametrize("kind", DIVIDED)
def test_what_is_divided_must_divide(kind) -> None:
    assert kind.why_not((5, 2), 2) == (
        "the first dimension of shape (5, 2) cannot be divided among 2 ranks"
        + (", unless with uneven=True" if kind.may_be_uneven else "")
    )
    assert kind.why_not((6, 2), 3) is None
    assert kind.why_not((0, 2), 3) is None


def test_who_brings_and_who_gets() -> None:
    assert [kinds.BROADCAST.brings(rank, 1) for rank in range(3)] == [False, True, False]
    assert [kinds.GATHER.gets(rank, 2) for rank in range(3)] == [False, False, True]
    assert all(kinds.BROADCAST.gets(rank, 1) for rank in range(3))
    assert all(kinds.REDUCE.brings(rank, 1) for rank in range(3))
