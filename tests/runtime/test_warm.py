"""Memory of large values, used again."""

from __future__ import annotations

import contextlib
import gc
import os
import signal

import numpy as np
import pytest

import runtime
from compiled_dag.errors import ActorDiedError
from runtime import peer, warm
from runtime.lifecycle import running
from runtime.mapped import MAPPINGS
from runtime.warm import WarmMemory, capacity_for
from tests.live import LONG_S, wait_until
from tests.runtime.actors import open_files
from tests.runtime.descriptors import is_open, segment

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


@pytest.mark.parametrize("size", [1, 4096, 100_000, MIB, MIB + 1, 3 * MIB + 5, (1 << 30) - 1])
def test_capacity_is_enough_and_wastes_little(size) -> None:
    capacity = capacity_for(size)
    assert size <= capacity <= max(size * 9 // 8 + 1, 4096)
    assert capacity % 4096 == 0
    assert capacity_for(capacity) == capacity


def test_what_is_given_is_taken_the_last_first(memory) -> None:
    first, second = segment(MIB), segment(MIB)
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
    first, second = segment(MIB), segment(MIB)
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


def test_what_is_given_back_is_empty_for_whoever_keeps_a_mapping(memory, clock) -> None:
    fd = segment(MIB)
    mapping = MAPPINGS.of(fd, MIB)
    view = mapping.view()
    view[5] = 1
    memory.give(fd)
    clock.run()
    clock.run()
    assert not is_open(fd)
    assert view[5] == 0


def test_a_forked_child_leaves_its_parents_memory_alone(memory) -> None:
    fd = segment(MIB)
    os.pwrite(fd, b"x", 0)
    memory.give(os.dup(fd))
    memory.abandon()
    assert os.pread(fd, 1, 0) == b"x"
    os.close(fd)


def test_after_its_end_nothing_is_kept(memory) -> None:
    fd, late = segment(MIB), segment(MIB)
    memory.give(fd)
    memory.close()
    assert not is_open(fd)
    assert not memory.give(late)
    os.close(late)


# --- in a session


class Plain:
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

    def first(self, array):
        return int(array[0])

    def pass_back(self, refs):
        return refs

    def put_again(self, array):
        return [runtime.put(array)]

    def pid(self):
        return os.getpid()

    def num_descriptors(self):
        return len(open_files())

    def fork(self):
        """Have a child that sees what this process sees, until `child_sees`."""
        self.ask, asked = os.pipe()
        answer, self.say = os.pipe()
        self.pipes = [asked, answer]
        if not (child := os.fork()):
            os.read(self.ask, 1)
            os.write(self.say, bytes([int(array.max()) for array in self.held]))
            os._exit(0)
        self.child = child

    def child_sees(self):
        os.write(self.pipes[0], b"?")
        os.waitpid(self.child, 0)
        seen = list(os.read(self.pipes[1], 100))
        for fd in (self.ask, self.say, *self.pipes):
            os.close(fd)
        return seen

    def put(self, number):
        return [runtime.put(np.full(MIB, number, np.uint8))]


@runtime.remote
class Holder(Plain):
    pass


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


# --- arguments of calls: the process has no reference of them


def number_in_stock() -> int:
    return sum(map(len, running().memory._stock.values()))


@pytest.mark.proc
def test_memory_of_arguments_is_used_again(session, monkeypatch):
    monkeypatch.setattr(warm, "_KEPT_S", 1000.0)
    holder = Holder.remote()
    for number in range(20):
        assert get(holder.first.remote(np.full(MIB, number, np.uint8))) == number
        assert number_in_stock() == 1  # it comes back before the result does


@pytest.mark.proc
def test_an_argument_that_is_returned_inside_a_reference_arrives(session):
    holder = Holder.remote()
    for number in range(10):
        (ref,) = get(holder.pass_back.remote([runtime.put(np.full(MIB, number, np.uint8))]))
        assert int(get(ref)[-1]) == number
        (ref,) = get(holder.put_again.remote(np.full(MIB, 100 + number, np.uint8)))
        assert int(get(ref)[-1]) == 100 + number


@pytest.mark.proc
@pytest.mark.parametrize("by_reference", [False, True])
def test_an_argument_that_is_kept_never_changes(session, by_reference):
    holder, other = Holder.remote(), Holder.remote()
    for number in range(1, 40):
        array = np.full(MIB, number, np.uint8)
        argument = runtime.put(array) if by_reference else array
        (holder.keep if number % 3 else holder.first).remote(argument)
        del argument
        assert get(other.first.remote(np.full(MIB, 100 + number, np.uint8))) == 100 + number
    kept = [2 * number for number in range(1, 40) if number % 3]
    assert get(holder.sums.remote()) == kept


@pytest.mark.proc
def test_more_kept_arguments_than_are_watched_never_change(session, monkeypatch):
    monkeypatch.setattr(peer, "_MOST_LENT", 3)
    holder = Holder.remote()
    get([holder.keep.remote(np.full(MIB, number, np.uint8)) for number in range(10)])
    for number in range(10):
        assert get(holder.first.remote(np.full(MIB, 100 + number, np.uint8))) == 100 + number
    assert get(holder.sums.remote()) == [2 * number for number in range(10)]
    get(holder.drop.remote())


@pytest.mark.proc
def test_arguments_that_are_kept_take_no_descriptors_of_the_process(session):
    holder = Holder.remote()
    before = get(holder.num_descriptors.remote())
    get([holder.keep.remote(np.full(MIB, number, np.uint8)) for number in range(10)])
    assert get(holder.num_descriptors.remote()) <= before + 1


@pytest.mark.proc
def test_the_death_of_who_keeps_arguments_gives_their_memory_back(session):
    holder, other = Holder.remote(), Holder.remote()
    shared = runtime.put(np.full(MIB, 77, np.uint8))
    get([one.keep.remote(shared) for one in (holder, other)])
    get([holder.keep.remote(np.full(MIB, number, np.uint8)) for number in range(1, 9)])
    del shared
    pid = get(holder.pid.remote())
    running_call = holder.first.remote(np.full(MIB, 9, np.uint8))
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ActorDiedError):
        get(running_call)
    for number in range(10):
        assert get(other.first.remote(np.full(MIB, 100 + number, np.uint8))) == 100 + number
    assert get(other.sums.remote()) == [2 * 77]
    get(other.drop.remote())
    wait_until(lambda: not any("compiled-dag-value" in name for name in open_files()))


@pytest.mark.proc
def test_a_call_that_is_made_again_after_a_death_gets_what_it_was_given(session):
    fragile = Fragile.options(max_restarts=1, max_task_retries=1).remote()
    assert get(fragile.die_once.remote(np.full(MIB, 5, np.uint8), os.getpid())) == 5 * MIB


@runtime.remote
class Fragile:
    def die_once(self, array, driver):
        if not runtime.get_runtime_context().was_current_actor_reconstructed:
            os.kill(os.getpid(), signal.SIGKILL)
        return int(array.sum(dtype=np.int64))


# --- forked children, who tell nobody


@pytest.mark.proc
@pytest.mark.parametrize("by_reference", [False, True])
def test_what_a_forked_child_of_an_actor_sees_never_changes(session, by_reference):
    holder = Holder.remote()
    for number in range(1, 4):
        array = np.full(MIB, number, np.uint8)
        if by_reference:
            get(holder.hold.remote([runtime.put(array)]))
        else:
            get(holder.keep.remote(array))
    get(holder.fork.remote())
    get(holder.drop.remote())
    for number in range(20):
        assert get(holder.first.remote(np.full(MIB, 100 + number, np.uint8))) == 100 + number
        assert int(get(runtime.put(np.full(MIB, 200, np.uint8)))[0]) == 200
    assert get(holder.child_sees.remote()) == [1, 2, 3]


@pytest.mark.proc
def test_what_a_forked_child_of_the_driver_sees_never_changes(session):
    local = Plain()
    local.held = [get(runtime.put(np.full(MIB, number, np.uint8))) for number in range(1, 4)]
    local.fork()
    local.drop()
    for number in range(20):
        assert int(get(runtime.put(np.full(MIB, 100 + number, np.uint8)))[0]) == 100 + number
    assert local.child_sees() == [1, 2, 3]


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
