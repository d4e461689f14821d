from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_dag import MemoryCapError
from compiled_dag.channel import layout as at
from compiled_dag.channel.lease import LEASE_BYTES
from compiled_dag.shm.segment import HUGE
from tests.compiled_dag.channel.wires import SLOT, Wire

LARGE = LEASE_BYTES + 1000


def filled(number: int, size: int = LARGE) -> np.ndarray:
    """Return an array that no other number gives."""
    return np.full(size // 4, number, np.uint32)


def shows(array: np.ndarray, number: int) -> bool:
    return bool((array == number).all())


# --- reuse ----------------------------------------------------------------------------------------


def test_a_slot_that_was_let_go_is_the_next_one_used(wire) -> None:
    one = wire()
    for number in range(50):
        assert shows(one.send(filled(number)), number)
    assert one.reserved() == SLOT


def test_memory_of_one_slot_only_is_touched_while_nothing_is_held(wire) -> None:
    one = wire()
    one.send(filled(0))
    before = one.memory()
    for number in range(50):
        one.send(filled(number))
    assert one.memory() == before


def test_a_slot_is_reused_only_when_every_reader_let_go(wire) -> None:
    one = wire(readers=2)
    one.writer.write(filled(0))
    fast, slow = (reader.read() for reader in one.readers)
    del fast
    for number in range(1, 20):
        one.writer.write(filled(number))
        for reader in one.readers:
            assert shows(reader.read(), number)
    assert shows(slow, 0)


def test_a_reader_that_lags_behind_pins_what_it_has_not_read(wire) -> None:
    one = wire(readers=2, depth=4)
    fast, slow = one.readers
    for number in range(4):
        one.writer.write(filled(number))
        assert shows(fast.read(), number)
    assert all(shows(slow.read(), number) for number in range(4))


def test_used_memory_is_what_somebody_still_reads_or_holds(wire) -> None:
    one = wire()
    held = [one.send(filled(number)) for number in range(3)]
    assert one.used() == 3 * SLOT
    held.clear()
    assert one.used() == 0
    assert one.reserved() == 3 * SLOT


# --- pinned values --------------------------------------------------------------------------------


def test_a_held_value_is_never_overwritten(wire) -> None:
    one = wire()
    held = {number: one.send(filled(number)) for number in range(20)}
    for number in range(100, 150):
        one.send(filled(number))
    assert all(shows(value, number) for number, value in held.items())


def test_any_view_of_a_value_pins_it(wire) -> None:
    one = wire()
    views = [
        one.send(filled(0))[7:9],
        one.send(filled(1)).reshape(-1, 2).T,
        memoryview(one.send(filled(2))),
        one.send({"deep": [filled(3)]})["deep"][0][::2],
    ]
    for number in range(100, 150):
        one.send(filled(number))
    assert all(shows(np.asarray(view), number) for number, view in enumerate(views))


def test_more_slots_are_added_while_all_are_held_and_used_again_later(wire) -> None:
    one = wire(depth=2)
    held = [one.send(filled(number)) for number in range(30)]
    assert all(shows(value, number) for number, value in enumerate(held))
    assert one.reserved() == 30 * SLOT
    held.clear()
    held += [one.send(filled(number)) for number in range(30)]
    assert one.reserved() == 30 * SLOT


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from([100, 5000, LARGE, 3 * LARGE, 9 * LARGE]), st.booleans()),
        max_size=25,
    ),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_whatever_is_held_and_dropped_nothing_held_ever_changes(sends, readers, chance) -> None:
    one = Wire(readers=readers, depth=2)
    held: dict[int, list[np.ndarray]] = {}
    try:
        for number, (size, drop) in enumerate(sends):
            one.writer.write(filled(number, size))
            held[number] = [reader.read() for reader in one.readers]
            if drop:
                _drop_one(held, chance)
            for then, values in held.items():
                assert all(shows(value, then) for value in values)
    finally:
        one.close()


def _drop_one(held: dict[int, list[np.ndarray]], chance: random.Random) -> None:
    number = chance.choice(list(held))
    held[number].pop(chance.randrange(len(held[number])))
    if not held[number]:
        del held[number]


# --- growth ---------------------------------------------------------------------------------------


def test_a_channel_grows_for_a_value_that_does_not_fit(wire) -> None:
    one = wire()
    for number, size in enumerate([LARGE, 2 * SLOT, 9 * SLOT, LARGE, 40 * SLOT]):
        assert shows(one.send(filled(number, size)), number)


def test_the_first_value_may_be_larger_than_the_first_slot(wire) -> None:
    one = wire(slot_bytes=1)
    assert shows(one.send(filled(1, 20 * SLOT)), 1)
    assert shows(one.send(filled(2)), 2)


def test_growth_at_least_doubles(wire) -> None:
    one = wire()
    one.send(filled(0))
    one.send(filled(1, SLOT + 4096))
    assert one.reserved() == 2 * SLOT


def test_values_of_before_the_growth_stay_valid_and_give_their_memory_back_later(wire) -> None:
    one = wire()
    held = [one.send(filled(number)) for number in range(3)]
    before = one.memory()
    grown = one.send(filled(9, 3 * SLOT))
    assert all(shows(value, number) for number, value in enumerate(held))
    assert one.memory() >= before + 3 * SLOT
    held.clear()
    assert shows(one.send(filled(10, 3 * SLOT)), 10)  # the writer looks when it writes
    assert one.memory() <= before - 3 * LARGE + 2 * 3 * SLOT + 4 * at.SLOT
    assert shows(grown, 9)


def test_memory_of_an_outgrown_slot_that_nobody_holds_goes_back_at_once(wire) -> None:
    one = wire()
    empty = one.memory()
    one.send(filled(0, SLOT - 1000))
    one.send(filled(1, 2 * SLOT))
    assert one.memory() - empty < 2 * SLOT + 8 * at.SLOT


def test_an_outgrown_slot_that_is_let_go_is_not_used_for_larger_values(wire) -> None:
    one = wire()
    first, second = one.send(filled(0)), one.send(filled(1))
    one.send(filled(2, 2 * SLOT))
    del first  # its neighbour is still held, so the extent is still there
    for number in range(3, 10):
        assert shows(one.send(filled(number, 2 * SLOT)), number)
        assert shows(second, 1)


def test_a_reader_that_lags_behind_reads_values_of_before_the_growth(wire) -> None:
    one = wire(readers=2, depth=4)
    fast, slow = one.readers
    sizes = [LARGE, LARGE, 3 * SLOT, 9 * SLOT]
    for number, size in enumerate(sizes):
        one.writer.write(filled(number, size))
        assert shows(fast.read(), number)
    assert all(shows(slow.read(), number) for number in range(4))


def test_a_reader_forgets_what_was_outgrown(wire) -> None:
    one = wire()
    for number in range(8):
        one.send(filled(number, LARGE << number))
    assert len(one.readers[0]._extents) <= 2


def test_large_slots_are_in_huge_pages_that_take_no_more_than_is_counted(wire) -> None:
    one = wire(readers=2)
    empty, held = one.memory(), []
    for number, size in enumerate([LARGE, HUGE // 2, HUGE, 2 * HUGE + SLOT, 5 * HUGE]):
        held += [one.send(filled(10 * number + turn, size)) for turn in range(2)]
        last = one.writer._pool._extents[-1]
        assert (last.mapping.address + last.slot(1)) % at.alignment(last.capacity) == 0
    assert all(shows(value, 10 * (n // 2) + n % 2) for n, value in enumerate(held))
    words = 5 * at.SLOT
    assert one.memory() - empty <= one.reserved() + words
    del held[:8]
    one.send(filled(99, 5 * HUGE))
    assert one.reserved() == 3 * one.writer._pool._extents[-1].capacity
    assert one.memory() - empty <= one.reserved() + words
    assert shows(held[0], 40)
    assert shows(held[1], 41)


def test_the_pool_says_when_it_has_run_out_of_places(wire, monkeypatch) -> None:
    monkeypatch.setattr(at, "MAX_EXTENTS", 2)
    one = wire(depth=1)
    slots = 2 + 4  # of the first extent, and of one twice as large
    held = [one.send(filled(number)) for number in range(slots)]
    with pytest.raises(MemoryCapError, match=r"Worker\.f#1 holds more pinned values than"):
        one.writer.write(filled(slots))
    assert all(shows(value, number) for number, value in enumerate(held))
    del held[3]
    assert shows(one.send(filled(3)), 3)
