"""What is asked of NCCL, in which order; a group on paper in NCCL's place."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from collective import nccl_group
from collective.header import BROKEN, CLOSED, FAULTED, OPEN
from collective.nccl_group import NcclGroup, Watch
from compiled_dag.errors import ChannelClosedError
from compiled_dag.shm.state import STATE_WORD, mark_broken, set_state
from tests.gates import PATIENCE_S

OWN, OTHER = torch.device("cuda", 0), torch.device("cuda", 1)


class PaperGroup:
    """See torch's ProcessGroupNCCL."""

    def __init__(self, store, rank, world_size, options) -> None:
        self.calls = [("made", rank, world_size, options.config.blocking)]
        self.aborted = threading.Event()

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name.lstrip("_"), *args))
            return SimpleNamespace(wait=lambda: self.calls.append(("wait",)))

        return call

    def abort(self) -> None:
        assert not self.aborted.is_set(), "aborted twice"
        self.aborted.set()


class Options:
    def __init__(self, *, is_high_priority_stream: bool) -> None:
        assert is_high_priority_stream
        self.config = SimpleNamespace(blocking=True)


class PaperWaiter:
    def until(self, ready, guard, deadline=None, site=None) -> bool:
        while not ready():
            guard()
            if deadline is not None and time.monotonic() > deadline:
                return False
        return True


class PaperEvent:
    """Is done when the streams that it was recorded on are."""

    busy: ClassVar[set[str]] = set()
    recorded: ClassVar[list[str]] = []

    def record(self, stream: str) -> None:
        self.stream = stream
        self.recorded.append(stream)

    def query(self) -> bool:
        return self.stream not in self.busy


class Header:
    def __init__(self, words) -> None:
        self.words = words

    @property
    def state(self) -> int:
        return self.words[STATE_WORD]

    def guard(self) -> None:
        if self.state == BROKEN:
            raise ChannelClosedError("the collective group was ended")


@pytest.fixture
def group(monkeypatch, state_words):
    """Made by a thread whose current GPU is the second, as user code may have made it."""
    monkeypatch.setattr(PaperEvent, "busy", set())
    monkeypatch.setattr(PaperEvent, "recorded", [])

    def current_stream(device=OTHER) -> str:
        return f"of {device}"

    cuda = SimpleNamespace(
        current_device=lambda: 1, current_stream=current_stream, Event=PaperEvent
    )
    paper = SimpleNamespace(
        cuda=cuda, device=torch.device, zeros=lambda n, device: torch.zeros(n),
        uint8=torch.uint8, tensor=lambda numbers, dtype, device: torch.tensor(numbers, dtype=dtype),
    )  # fmt: skip
    PaperGroup.Options = Options
    dist = SimpleNamespace(ProcessGroupNCCL=PaperGroup, PrefixStore=lambda *_: None)
    monkeypatch.setattr(nccl_group, "torch", paper)
    monkeypatch.setattr(nccl_group, "dist", dist)
    made = NcclGroup(SimpleNamespace(header=Header(state_words)), 1, 3, PaperWaiter())
    yield made
    made.abort()


def test_a_group_is_connected_when_it_is_made_and_never_blocks(group) -> None:
    names = [call[0] for call in group._group.calls]
    assert group._group.calls[0] == ("made", 1, 3, False)
    assert names[1:] == [
        "set_sequence_number_for_group", "eager_connect_single_device", "allreduce", "wait"
    ]  # fmt: skip


def test_it_is_on_the_process_s_first_gpu_whatever_is_current(group) -> None:
    assert ("eager_connect_single_device", OWN) in group._group.calls
    group.settle()
    assert PaperEvent.recorded == [f"of {OWN}"] * 2  # in the warm-up, too


@pytest.mark.parametrize("state", [OPEN, CLOSED])
def test_what_was_begun_is_done_before_a_group_that_ends_in_peace_is_aborted(
    group, state, monkeypatch
) -> None:
    monkeypatch.setattr(nccl_group, "LEAVE_S", 0.1)
    torchs, stream = group._group, f"of {OWN}"
    group.exchange([(group.marks([1]), 0)], ())
    PaperEvent.busy.add(stream)
    set_state(group._store.header.words, state)
    ending = threading.Thread(target=group.abort)
    ending.start()
    assert not torchs.aborted.wait(0.5)
    PaperEvent.busy.remove(stream)
    ending.join(120)
    assert torchs.aborted.is_set()


@pytest.mark.parametrize("state", [BROKEN, FAULTED])
def test_what_was_begun_in_a_group_that_failed_is_not_waited_for(group, state) -> None:
    torchs = group._group
    group.run("allreduce", None, group.marks([1]), op="SUM", root=0).wait()
    PaperEvent.busy.add(f"of {OWN}")
    set_state(group._store.header.words, state)
    group.abort()
    assert torchs.aborted.is_set()


def test_what_does_not_come_to_its_end_is_aborted_after_a_while(group, monkeypatch) -> None:
    monkeypatch.setattr(nccl_group, "FINISH_S", 0.0)
    torchs = group._group
    PaperEvent.busy.add(f"of {OWN}")
    group.abort()
    assert torchs.aborted.is_set()


def test_what_is_sent_and_received_at_once_is_one_operation(group) -> None:
    sent, other, taken = (group.marks([number]) for number in (1, 2, 3))
    del group._group.calls[:]
    group.exchange([(sent, 0), (other, 2)], [(taken, 2)])
    assert group._group.calls == [
        ("start_coalescing",),
        ("send", [sent], 0, 0),
        ("send", [other], 2, 0),
        ("recv", [taken], 2, 0),
        ("end_coalescing",),
        ("wait",),
    ]


def test_what_fails_when_it_is_begun_leaves_nothing_open(group) -> None:
    taken = group.marks([3])
    group._group.recv = lambda *_: (_ for _ in ()).throw(RuntimeError("no such rank"))
    del group._group.calls[:]
    with pytest.raises(RuntimeError, match="no such rank"):
        group.exchange([(taken, 0)], [(taken, 7)])
    assert group._group.calls == [
        ("start_coalescing",), ("send", [taken], 0, 0), ("end_coalescing",)
    ]  # fmt: skip


def test_a_group_that_broke_is_aborted_once_and_refuses_everything_then(group) -> None:
    torchs = group._group
    set_state(group._store.header.words, BROKEN)
    assert torchs.aborted.wait(120)
    group.abort()
    with pytest.raises(ChannelClosedError):
        group.exchange([], [])
    set_state(group._store.header.words, OPEN)
    with pytest.raises(RuntimeError, match="the group was aborted"):
        group.run("allreduce", None, group.marks([1]), op="SUM", root=0)


@pytest.fixture
def asleep(monkeypatch):
    """Released each time that a group's thread goes to sleep."""
    gone, sleep = threading.Semaphore(0), nccl_group.sleep_while

    def noted(*seen) -> None:
        gone.release()
        sleep(*seen)

    monkeypatch.setattr(nccl_group, "sleep_while", noted)
    return gone


def test_nothing_wakes_the_thread_of_a_group_that_is_open(state_words, asleep) -> None:
    aborted = threading.Event()
    watch = Watch(state_words, aborted.set)
    assert asleep.acquire(timeout=PATIENCE_S)
    assert not asleep.acquire(timeout=0.3)
    watch.leave()
    watch.leave()
    watch._thread.join(PATIENCE_S)
    assert not watch._thread.is_alive()
    assert not aborted.is_set()


@pytest.mark.parametrize("state", [BROKEN, FAULTED])
def test_a_group_that_has_ended_is_aborted_from_a_thread_of_its_own(
    state_words, asleep, state
) -> None:
    aborted = threading.Event()
    Watch(state_words, aborted.set)
    assert asleep.acquire(timeout=PATIENCE_S)
    set_state(state_words, state)
    assert aborted.wait(PATIENCE_S)


def test_so_is_one_whose_driver_has_died(state_words, state_segment, asleep) -> None:
    aborted = threading.Event()
    Watch(state_words, aborted.set)
    assert asleep.acquire(timeout=PATIENCE_S)
    mark_broken(state_segment.fd)
    assert aborted.wait(PATIENCE_S)


def test_a_group_that_had_ended_before_is_aborted_at_once(state_words) -> None:
    set_state(state_words, BROKEN)
    aborted = threading.Event()
    Watch(state_words, aborted.set)
    assert aborted.wait(PATIENCE_S)


def test_a_closed_group_is_left_to_the_main_thread_for_a_while(
    state_words, asleep, monkeypatch
) -> None:
    set_state(state_words, CLOSED)
    aborted = threading.Event()
    watch = Watch(state_words, aborted.set)
    assert asleep.acquire(timeout=PATIENCE_S)
    watch.leave()
    assert not aborted.is_set()
    monkeypatch.setattr(nccl_group, "LEAVE_S", 0.05)
    Watch(state_words, aborted.set)
    assert aborted.wait(PATIENCE_S)


def test_a_rank_that_dies_while_a_group_is_closed_is_not_waited_for(
    state_words, asleep, monkeypatch
) -> None:
    monkeypatch.setattr(nccl_group, "LEAVE_S", 100 * PATIENCE_S)
    set_state(state_words, CLOSED)
    aborted = threading.Event()
    Watch(state_words, aborted.set)
    assert asleep.acquire(timeout=PATIENCE_S)
    set_state(state_words, BROKEN)
    assert aborted.wait(PATIENCE_S)


def test_leaving_ends_the_thread_wherever_it_is(state_words) -> None:
    aborted = threading.Event()
    for _ in range(100):
        watch = Watch(state_words, aborted.set)
        watch.leave()
        watch._thread.join(PATIENCE_S)
        assert not watch._thread.is_alive()
    assert not aborted.is_set()
