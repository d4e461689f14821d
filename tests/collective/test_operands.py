"""Where results of eager operations go: which memory cannot take them."""

from __future__ import annotations

import pytest
import torch

import collective
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
