"""Where results of eager operations go: which memory cannot take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import collective
from collective.operands import as_tensor
from collective.refusals import overlaps, sharing
from tests.collective.members import members, raised  # noqa: F401  a fixture


def test_results_that_share_memory_are_named_by_position(members) -> None:  # noqa: F811
    session = members(3)
    one, other = torch.zeros(2), torch.zeros(4)
    brought = {
        "tensors 0 and 2 of the list share memory (they begin at the same address)": (
            [one, other[:2], one]
        ),
        "tensors 1 and 2 of the list share memory (they overlap)": [one, other[:2], other[1:3]],
        "tensor 1 of the list has elements that share memory (expand, as_strided)": (
            [one, torch.zeros(1).expand(2), other[:2]]
        ),
    }
    for text, outputs in brought.items():
        for error in raised(
            session.run_all(
                lambda rank, outputs=outputs: collective.allgather(
                    outputs if rank == 1 else list(torch.zeros(3, 2)), torch.ones(2)
                )
            )
        ):
            assert text in str(error)


def test_results_may_be_parts_of_one_tensor_that_interleave(members) -> None:  # noqa: F811
    session = members(2)
    results = [torch.zeros(3, 2), torch.zeros(2, 3).t()]

    def gather(rank):
        collective.allgather(list(results[rank].unbind(1)), torch.full((3,), float(rank)))

    assert session.run_all(gather) == [None, None]
    assert [one.tolist() for one in results] == [[[0.0, 1.0]] * 3] * 2


STRIDES = [
    ((3, 4), (4, 1), False), ((3, 4), (1, 3), False), ((3, 2), (2, 3), False),
    ((2, 2), (1, 1), True), ((49, 4), (2, 1), True), ((25, 4), (4, 1), False),
    ((1, 5), (0, 1), False), ((2, 5), (0, 1), True), ((0, 5), (0, 0), False),
    ((2, 3, 2), (6, 2, 1), False), ((2, 3, 2), (3, 2, 1), True),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "strides", "shared"), STRIDES)
def test_elements_that_share_memory_are_found_by_strides(shape, strides, shared) -> None:
    assert overlaps(torch.zeros(200).as_strided(shape, strides)) == shared


def test_tensors_that_share_memory_are_found_by_position() -> None:
    whole, other = torch.zeros(4, 6), torch.zeros(3)
    assert sharing([whole, other]) is None
    assert sharing(list(whole)) is None
    assert sharing(list(whole.unbind(1))) is None
    assert sharing([whole[:, :3], other, whole[:, 3:], whole[2, 2]]) == (0, 3)
    assert sharing([other, whole[1:3], whole[:2]]) == (1, 2)
    assert sharing([whole[:0], whole, whole[4:]]) is None


UNUSABLE = [
    (np.zeros(3, ">f4"), TypeError, "dtype '>f4', whose bytes are in the order of other machines"),
    (np.zeros(3, object), TypeError, "dtype object, which torch"),
    (np.zeros(3, "M8[s]"), TypeError, "dtype datetime64[s], which torch"),
    (np.zeros(3, [("a", "f4")]), TypeError, "dtype [('a', '<f4')], which torch"),
    (np.zeros(3)[::-1], ValueError, "strides of (-8,) bytes, and torch needs multiples of the 8"),
    (np.zeros(3, [("a", "f4"), ("b", "u1")])["a"], ValueError, "strides of (5,) bytes"),
]


@pytest.mark.parametrize(("array", "kind", "told"), UNUSABLE)
def test_arrays_that_torch_cannot_have_are_told_with_what_to_do(array, kind, told) -> None:
    with pytest.raises(kind) as raised:
        as_tensor(array, "the tensor", writes=True)
    assert str(raised.value).startswith("the tensor is an array")
    assert told in str(raised.value)
    assert ": pass " in str(raised.value)


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
)
def test_arrays_of_numbers_are_taken_as_they_are(dtype) -> None:
    array = np.ones((2, 3), dtype)[:, ::2]
    tensor = as_tensor(array, "the tensor", writes=True)
    tensor.zero_()
    assert not array.any()
