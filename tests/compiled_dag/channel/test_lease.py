from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from compiled_dag.channel.lease import LEASE_BYTES, lease, lease_type
from compiled_dag.shm.forks import generation
from compiled_dag.shm.segment import PAGE, Segment
from tests.compiled_dag.channel.wires import SLOT, Wire

LARGE = LEASE_BYTES + 1000
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def mapping():
    segment = Segment.create("compiled-dag-test", 4 * PAGE)
    mapping = segment.map(0, 4 * PAGE)
    segment.close()
    return mapping


def words_of(mapping):
    return mapping.view()[:PAGE].cast("Q")


# --- one lease ------------------------------------------------------------------------------------


def test_a_lease_stores_its_word_when_the_last_view_dies(mapping) -> None:
    words = words_of(mapping)
    held = lease(lease_type(PAGE), mapping, PAGE, words, 3, 7)
    array = np.ndarray((10,), np.uint8, held)
    tail = array[5:]
    del held, array
    assert words[3] == 0
    del tail
    assert words[3] == 7


def test_a_lease_shows_the_memory_it_was_made_for(mapping) -> None:
    mapping.view()[PAGE + 2] = 9
    held = lease(lease_type(PAGE), mapping, PAGE, words_of(mapping), 0, 1)
    assert np.ndarray((3,), np.uint8, held).tolist() == [0, 0, 9]


def test_a_lease_keeps_the_mapping(mapping) -> None:
    words = words_of(mapping)
    array = np.ndarray((4,), np.uint8, lease(lease_type(PAGE), mapping, PAGE, words, 0, 1))
    del mapping, words
    gc.collect()
    assert array.tolist() == [0, 0, 0, 0]


def test_a_lease_in_a_cycle_is_released_by_the_collector(mapping) -> None:
    words = words_of(mapping)
    array = np.ndarray((4,), np.uint8, lease(lease_type(PAGE), mapping, PAGE, words, 0, 1))
    cycle: list = [array]
    cycle.append(cycle)
    del array, cycle
    gc.collect()
    assert words[0] == 1


def test_a_forked_child_releases_what_it_leased_and_nothing_it_inherited(mapping) -> None:
    words = words_of(mapping)
    inherited = lease(lease_type(PAGE), mapping, PAGE, words, 0, 1)
    generation[0] += 1  # as in the child
    try:
        del inherited
        own = lease(lease_type(PAGE), mapping, PAGE, words, 1, 1)
        del own
    finally:
        generation[0] -= 1
    assert words[:2].tolist() == [0, 1]


def test_a_lease_type_whose_instance_was_never_filled_in_releases_nothing() -> None:
    lease_type(16)()


# --- leases of a channel --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hold",
    [
        lambda value: value,
        lambda value: value[3:],
        lambda value: value.reshape(-1, 2),
        memoryview,
        iter,
        lambda value: {"nested": [value]},
    ],
    ids=["itself", "slice", "reshaped", "memoryview", "iterator", "container"],
)
def test_a_slot_is_pinned_while_any_view_lives_and_free_afterwards(wire, hold) -> None:
    one = wire()
    held = hold(one.send(np.zeros(LARGE, np.uint8)))
    assert one.used() == SLOT
    del held
    assert one.used() == 0


def test_leases_are_released_in_any_order_by_any_thread(wire) -> None:
    one = wire(readers=2)
    held = []
    for number in range(8):
        one.writer.write(np.full(LARGE, number, np.uint8))
        held += [reader.read() for reader in one.readers]
    threads = [threading.Thread(target=held.pop) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert one.used() == 0


def test_a_value_outlives_its_channel(wire) -> None:
    one = wire()
    value = one.send(np.full(LARGE, 7, np.uint8))
    one.close()
    del one
    gc.collect()
    assert (value == 7).all()


@pytest.mark.proc
@FORKS
def test_a_forked_child_that_ends_releases_nothing() -> None:
    one = Wire()
    value = one.send(np.full(LARGE, 7, np.uint8))
    child = os.fork()
    if not child:
        status = 1
        try:
            assert (value == 7).all()
            del value
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert one.used() == SLOT
    for number in range(10):
        one.send(np.full(LARGE, 100 + number, np.uint8))
    assert (value == 7).all()
    del value
    assert one.used() == 0
    one.close()


@pytest.mark.proc
@FORKS
def test_a_parent_that_lets_go_while_a_child_lives_frees_the_slot() -> None:
    one = Wire()
    value = one.send(np.full(LARGE, 7, np.uint8))
    done_read, done_write = os.pipe()
    child = os.fork()
    if not child:
        os.close(done_write)
        os.read(done_read, 1)
        os._exit(0)
    os.close(done_read)
    del value
    used = one.used()
    os.close(done_write)
    os.waitpid(child, 0)
    one.close()
    assert used == 0
