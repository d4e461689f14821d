"""Memory of large values, used again."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

import runtime
from runtime import warm
from runtime.lifecycle import running
from runtime.warm import WarmMemory, capacity_for
from tests.live import LONG_S, wait_until

MIB = 1 << 20


class Clock:
    """Runs what is to run soon or later when told to."""

    def __init__(self) -> None:
        self.soon: list = []
        self.later: list = []

    def run(self) -> None:
        for function in self.soon:
            function()
        self.soon.clear()
        due, self.later = self.later, []
        for _, function in due:
            function()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory(clock):
    memory = WarmMemory(
        clock.soon.append, lambda delay, function: clock.later.append((delay, function))
    )
    yield memory
    memory.close()


def segment(size=MIB) -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, capacity_for(size))
    return fd


def is_open(fd) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("size", [1, 4096, 100_000, MIB, MIB + 1, 3 * MIB + 5, (1 << 30) - 1])
def test_capacity_is_enough_and_wastes_little(size) -> None:
    capacity = capacity_for(size)
    assert size <= capacity <= max(size * 9 // 8 + 1, 4096)
    assert capacity % 4096 == 0
    assert capacity_for(capacity) == capacity


def test_what_is_given_is_taken_the_last_first(memory) -> None:
    first, second = segment(), segment()
    assert memory.give(first)
    assert memory.give(second)
    assert memory.take(MIB) == second
    assert memory.take(2 * MIB) == -1
    assert memory.take(MIB) == first
    assert memory.take(MIB) == -1
    os.close(first)
    os.close(second)


def test_too_much_is_not_kept(memory) -> None:
    large = segment(32 * MIB)
    assert not memory.give(large)
    os.close(large)
    given = [segment(16 * MIB) for _ in range(5)]
    assert [memory.give(fd) for fd in given] == [True] * 4 + [False]
    os.close(given[4])


def test_what_is_not_used_for_a_while_is_given_back(memory, clock) -> None:
    first, second = segment(), segment()
    memory.give(first)
    clock.run()  # looks for the first time
    memory.give(second)
    clock.run()
    assert not is_open(first)
    assert is_open(second)
    clock.run()
    assert not is_open(second)
    clock.run()
    assert clock.later == []  # nobody looks when there is nothing


def test_after_its_end_nothing_is_kept(memory) -> None:
    fd, late = segment(), segment()
    memory.give(fd)
    memory.close()
    assert not is_open(fd)
    assert not memory.give(late)
    os.close(late)


# --- in a session


@runtime.remote
class Holder:
    def __init__(self):
        self.held = []

    def hold(self, refs):
        self.held.append(runtime.get(refs[0]))
        return int(self.held[-1][0])

    def keep(self, array):
        self.held.append(array)

    def sums(self):
        return [int(array.min()) + int(array.max()) for array in self.held]

    def drop(self):
        self.held.clear()
        gc.collect()

    def put(self, number):
        return [runtime.put(np.full(MIB, number, np.uint8))]


def get(ref):
    return runtime.get(ref, timeout=LONG_S)


@pytest.mark.proc
def test_memory_that_somebody_sees_is_never_used_again(session):
    holder, other = Holder.remote(), Holder.remote()
    mine = []
    for number in range(1, 30):
        ref = runtime.put(np.full(MIB, number, np.uint8))
        assert get(holder.hold.remote([ref])) == number  # gets a reference: keeps it by its array
        if number % 3 == 0:
            other.keep.remote(ref)  # gets the value
        if number % 5 == 0:
            mine.append((number, get(ref)))
        del ref
        inner = get(other.put.remote(100 + number))[0]
        assert int(get(inner)[5]) == 100 + number
        del inner
    assert get(holder.sums.remote()) == [2 * number for number in range(1, 30)]
    assert get(other.sums.remote()) == [2 * number for number in range(3, 30, 3)]
    assert all((array == number).all() for number, array in mine)


@pytest.mark.proc
def test_memory_that_nobody_sees_is_given_back(session):
    stock = running().memory._stock
    get(runtime.put(np.ones(MIB, np.uint8)))
    gc.collect()
    wait_until(lambda: sum(map(len, stock.values())) == 0)


@pytest.mark.proc
def test_memory_that_nobody_sees_is_used_again(session, monkeypatch):
    monkeypatch.setattr(warm, "_KEPT_S", 1000.0)
    stock = running().memory._stock
    for number in range(20):
        assert int(get(runtime.put(np.full(MIB, number, np.uint8)))[0]) == number
        gc.collect()
        assert sum(map(len, stock.values())) == 1
    holder = Holder.remote()
    for number in range(20):
        assert get(holder.hold.remote([runtime.put(np.full(MIB, number, np.uint8))])) == number
        get(holder.drop.remote())
        wait_until(lambda: sum(map(len, stock.values())) == 1)
