"""Memory that calls are lent for their results."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import numpy as np
import pytest

import runtime
from compiled_dag.errors import ActorDiedError
from runtime import warm, wire
from runtime.lifecycle import running
from runtime.messages import Call, Reply
from runtime.parcel import Parcel
from runtime.spare import Spare, Spares
from runtime.warm import WarmMemory
from tests.live import LONG_S, wait_until
from tests.runtime.actors import open_files
from tests.runtime.descriptors import is_open, received, segment

MIB = 1 << 20
BODY = MIB + 100
"""As much as an array of 1 MiB takes, or a little more."""


@pytest.fixture
def memory():
    memory = WarmMemory(lambda _function: None, lambda _delay, _function: None)
    yield memory
    memory.close()


@pytest.fixture
def spares(memory):
    spares = Spares(memory)
    yield spares
    spares.close()


def large(nbytes=MIB) -> Parcel:
    return Parcel.of(np.zeros(nbytes, np.uint8))


# --- one of them


def test_it_is_for_one_value_that_fits() -> None:
    fd = segment(BODY)
    spare = Spare(fd)
    assert spare.take(2 * MIB) == -1
    assert spare.take(MIB) == fd
    assert spare.take(MIB) == -1
    del spare
    assert is_open(fd)
    os.close(fd)


def test_one_that_is_not_used_is_closed() -> None:
    fd = segment(BODY)
    Spare(fd)
    assert not is_open(fd)


@pytest.mark.proc
def test_a_forked_child_does_not_write_into_it() -> None:
    spare = Spare(segment(BODY))
    if not (child := os.fork()):
        os._exit(spare.take(MIB) == -1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    os.close(spare.take(MIB))


def test_a_value_is_laid_into_it_and_says_so() -> None:
    fd = segment(BODY)
    parcel = Parcel.of(np.full(MIB // 2, 7, np.uint8), Spare(fd))
    assert parcel.fd == fd
    assert parcel.is_in_spare
    assert (parcel.load() == 7).all()
    assert not Parcel.of(np.zeros(2 * MIB, np.uint8), Spare(segment(BODY))).is_in_spare
    assert Parcel.of(1, Spare(segment(BODY))).fd == -1


# --- those of a process


def lend(spares, number, name, num_returns=1):
    return spares.lend_to(Call(number, b"f", num_returns, ()), name).spare


def test_only_a_method_whose_last_result_was_large_is_lent_some(memory, spares) -> None:
    memory.give(segment(BODY))
    assert lend(spares, 1, "A.f") is None
    spares.settle(1, "A.f", [large()])
    assert lend(spares, 2, "A.g") is None
    assert lend(spares, 3, "A.f", num_returns=2) is None
    assert lend(spares, 3, "A.f") is not None
    assert lend(spares, 4, "A.f") is None  # there is no more
    spares.settle(3, "A.f", [Parcel.of(1)])
    assert lend(spares, 5, "A.f") is None


def test_what_a_call_has_not_used_comes_back(memory, spares) -> None:
    fd = segment(BODY)
    memory.give(fd)
    spares.settle(1, "A.f", [large()])
    lend(spares, 2, "A.f")
    spares.settle(2, "A.f", [Parcel.of(1)])
    assert memory.take(BODY) == fd
    os.close(fd)


def test_what_is_used_is_the_results(memory, spares) -> None:
    fd = segment(BODY)
    memory.give(fd)
    spares.settle(1, "A.f", [large()])
    lend(spares, 2, "A.f")
    assert spares.use(2) == fd
    spares.settle(2, "A.f", [large()])
    assert memory.take(BODY) == -1
    with pytest.raises(OSError, match="not lent"):
        spares.use(2)
    os.close(fd)


def test_what_a_dead_process_had_comes_back(memory, spares) -> None:
    fd = segment(BODY)
    memory.give(fd)
    spares.settle(1, "A.f", [large()])
    lend(spares, 2, "A.f")
    spares.close()
    assert memory.take(BODY) == fd
    os.close(fd)


def test_a_forked_child_closes_what_its_parent_has_lent(memory, spares) -> None:
    fd = segment(BODY)
    memory.give(fd)
    spares.settle(1, "A.f", [large()])
    lend(spares, 2, "A.f")
    spares.abandon()
    assert not is_open(fd)


# --- on their way


def test_a_call_brings_it_behind_its_arguments_and_the_reply_is_in_it(pair) -> None:
    driver, actor = pair
    fd = segment(BODY)
    os.pwrite(fd, b"mine", 0)
    call = Call(7, b"f", 1, [large(), Parcel.of(2)], Spare(fd))
    wire.send(driver, call)
    (arrived,) = received(wire.Inbox(actor, find=lambda _number: None))
    assert [parcel.size for parcel in arrived.parcels] == [parcel.size for parcel in call.parcels]
    assert os.pread(arrived.spare.fd, 4, 0) == b"mine"

    value = np.arange(MIB // 8)
    wire.send(actor, Reply(7, [Parcel.of(value, arrived.spare)]))
    back = wire.Inbox(driver, use_spare={7: fd}.pop)
    call.spare.take(0)  # it is the reply's now
    (reply,) = received(back)
    assert reply.parcels[0].fd == fd
    assert np.array_equal(reply.parcels[0].load(), value)


def test_a_reply_in_memory_that_was_not_lent_is_refused(pair) -> None:
    driver, actor = pair
    wire.send(actor, Reply(7, [Parcel.of(np.zeros(MIB, np.uint8), Spare(segment(BODY)))]))
    with pytest.raises(OSError, match="nobody lends"):
        received(wire.Inbox(driver))


# --- in a session


class Plain:
    def full(self, number):
        return np.full(MIB, number, np.uint8)

    def echo(self, value):
        return value

    def either(self, number):
        return number if number % 3 else np.full(MIB, number, np.uint8)

    def fail(self):
        raise ValueError("on purpose")

    def tensor(self, number):
        import torch

        return torch.full((MIB,), number, dtype=torch.uint8)

    def two(self, number):
        return np.full(MIB, number, np.uint8), np.full(MIB, number + 1, np.uint8)

    def stop(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def fork(self, number):
        """Return from two processes: only one of them is the actor."""
        os.fork()
        return np.full(MIB, number, np.uint8)

    def num_descriptors(self):
        return len(open_files())


@runtime.remote
class Maker(Plain):
    pass


@runtime.remote
class Waiter(Plain):
    async def full(self, number):
        await asyncio.sleep(0)
        return np.full(MIB, number, np.uint8)


@runtime.remote
def make(number):
    return np.full(MIB, number, np.uint8)


def get(ref):
    return runtime.get(ref, timeout=LONG_S)


def in_stock() -> int:
    return sum(map(len, running().memory._stock.values()))


@pytest.fixture
def kept(session, monkeypatch):
    """Have what nobody uses be kept as long as the session."""
    monkeypatch.setattr(warm, "_KEPT_S", 1000.0)


def inode(ref) -> int:
    return os.fstat(ref.parcel.fd).st_ino


def calls(kind):
    if kind == "task":
        return make.remote
    if kind == "threads":
        return Maker.options(max_concurrency=2).remote().full.remote
    return (Waiter if kind == "coroutine" else Maker).remote().full.remote


@pytest.mark.proc
@pytest.mark.parametrize("kind", ["actor", "task", "threads", "coroutine"])
def test_results_are_in_memory_that_was_used_before(kept, kind) -> None:
    call, seen = calls(kind), set()
    for number in range(20):
        ref = call(number)
        assert (get(ref) == number).all()
        seen.add(inode(ref))
        del ref
    assert len(seen) <= 2
    assert in_stock() == 1


@pytest.mark.proc
def test_results_that_are_held_never_change(session) -> None:
    maker, other = Maker.remote(), Maker.remote()
    held = []
    for number in range(40):
        result = get(maker.full.remote(number))
        if number % 3 == 0:
            held.append((number, result))
        if number % 5 == 0:
            held.append((number, get(other.echo.remote(result))))
        del result
    assert all((array == number).all() for number, array in held)


@pytest.mark.proc
def test_results_in_flight_never_share_memory(session) -> None:
    maker = Maker.remote()
    for _ in range(3):
        refs = [maker.full.remote(number) for number in range(10)]
        assert [int(get(ref).max()) for ref in refs] == list(range(10))
        del refs


@pytest.mark.proc
def test_tensors_of_results_can_be_changed_and_never_change(session) -> None:
    maker, held = Maker.remote(), []
    for number in range(10):
        tensor = get(maker.tensor.remote(number))
        tensor[0] = 200
        held.append(tensor)
        del tensor
        if number % 3:
            held.pop(0)
    assert all(int(tensor[0]) == 200 and len(set(tensor[1:].tolist())) == 1 for tensor in held)


@pytest.mark.proc
def test_results_of_any_size_after_a_large_one_arrive(kept) -> None:
    maker = Maker.remote()
    for number in range(12):
        found = get(maker.either.remote(number))
        assert np.all(found == number)
        del found
    for number in range(4):
        first, second = map(get, maker.two.options(num_returns=2).remote(number))
        assert (first == number).all()
        assert (second == number + 1).all()
    for nbytes in (MIB, MIB - 1, MIB + 1, 3 * MIB, MIB, 10, MIB):
        assert len(get(maker.echo.remote(np.zeros(nbytes, np.uint8)))) == nbytes


@pytest.mark.proc
def test_an_actor_keeps_no_descriptor_of_them(kept) -> None:
    maker = Maker.remote()
    before = get(maker.num_descriptors.remote())
    for number in range(10):
        get(maker.full.remote(number))
        get(maker.either.remote(number))
    assert get(maker.num_descriptors.remote()) <= before


@pytest.mark.proc
def test_memory_of_a_call_whose_actor_dies_goes_back(session) -> None:
    maker = Maker.remote()
    for number in range(3):
        get(maker.full.remote(number))
    refs = [maker.stop.remote(), maker.full.remote(4)]
    for ref in refs:
        with contextlib.suppress(ActorDiedError):
            get(ref)
    del refs, ref
    wait_until(lambda: not any("compiled-dag-value" in name for name in open_files()))


@pytest.mark.proc
def test_two_processes_that_return_from_one_call_do_not_share_it(kept) -> None:
    maker = Maker.remote()
    for number in range(6):
        assert (get(maker.fork.remote(number)) == number).all()


@pytest.mark.proc
def test_what_a_forked_child_of_the_driver_sees_of_results_never_changes(session) -> None:
    maker = Maker.remote()
    held = [get(maker.full.remote(number)) for number in range(1, 4)]
    ask, asked = os.pipe()
    answer, say = os.pipe()
    if not (child := os.fork()):
        os.read(ask, 1)
        os.write(say, bytes([int(array.max()) for array in held]))
        os._exit(0)
    held.clear()
    for number in range(20):
        assert (get(maker.full.remote(100 + number)) == 100 + number).all()
    os.write(asked, b"?")
    os.waitpid(child, 0)
    assert list(os.read(answer, 10)) == [1, 2, 3]
    for fd in (ask, asked, answer, say):
        os.close(fd)
