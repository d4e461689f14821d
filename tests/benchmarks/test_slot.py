"""Check the floor's slot within one process, and the decay of its penalty."""

from __future__ import annotations

import mmap
import pickle
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from benchmarks.slot import GOOD_WAITS, MAX_BACKOFF, SLOT_BYTES, Penalty, Slot

if TYPE_CHECKING:
    from collections.abc import Iterator


def expired(_slices: int) -> None:
    raise TimeoutError


@pytest.fixture
def ends() -> Iterator[tuple[Slot, Slot]]:
    with (
        mmap.mmap(-1, 2 * SLOT_BYTES) as memory,
        closing(Slot(memory, 1, expired)) as sender,
        closing(Slot(memory, 1, expired)) as receiver,
    ):
        yield sender, receiver


@pytest.mark.parametrize("value", [1, None, "text", b"", {"a": [1, 2.5]}])
def test_a_value_arrives(ends: tuple[Slot, Slot], value: object) -> None:
    sender, receiver = ends
    for _ in range(3):
        sender.put(value)
        assert receiver.take() == value


def test_buffers_travel_beside_the_pickle(ends: tuple[Slot, Slot]) -> None:
    sender, receiver = ends
    sender.put([pickle.PickleBuffer(bytearray(b"x" * 100)), pickle.PickleBuffer(b"yz")])
    received = receiver.take()
    assert isinstance(received, list)
    assert [bytes(part) for part in received] == [b"x" * 100, b"yz"]
    for part in received:
        part.release()


def test_a_value_put_before_the_receiver_exists_arrives() -> None:
    memory = mmap.mmap(-1, SLOT_BYTES)
    Slot(memory, 0, expired).put(1)
    assert Slot(memory, 0, expired).take() == 1


def test_too_many_buffers_are_refused(ends: tuple[Slot, Slot]) -> None:
    with pytest.raises(ValueError, match="at most 13 buffers"):
        ends[0].put([pickle.PickleBuffer(b"x") for _ in range(14)])


def test_a_wait_that_nobody_ends_is_bounded(ends: tuple[Slot, Slot]) -> None:
    with pytest.raises(TimeoutError):
        ends[1].take()


def test_the_penalty_doubles_up_to_its_bound() -> None:
    penalty = Penalty()
    skips = []
    for _ in range(MAX_BACKOFF + 1):
        penalty.slow()
        skips.append(penalty.skips)
    assert skips == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024]


def test_the_penalty_decays_with_quick_waits() -> None:
    penalty = Penalty()
    for _ in range(3):
        penalty.slow()
    for _ in range(2 * GOOD_WAITS):
        penalty.quick()
    penalty.slow()
    assert penalty.skips == 4  # the exponent went 3, 2, 1, and up to 2


def test_a_slow_yield_restarts_the_count_of_quick_waits() -> None:
    penalty = Penalty()
    penalty.slow()
    for _ in range(GOOD_WAITS - 1):
        penalty.quick()
    penalty.slow()
    penalty.quick()
    penalty.slow()
    assert penalty.skips == 8
