from __future__ import annotations

import threading

import pytest

from compiled_dag.cuda import rescue
from compiled_dag.cuda.rescue import Rescue
from compiled_dag.shm.state import BROKEN, CLOSED, OPEN, mark_broken, set_state
from tests.cuda.fake import FakeDevice, Settings
from tests.gates import PATIENCE_S


class Waits:
    """Something that has opened events of peers; notes every time it is to record them."""

    def __init__(self):
        self.released = threading.Semaphore(0)

    def release(self, _stream):
        self.released.release()


@pytest.fixture
def made(state_words):
    made = Rescue(FakeDevice(Settings("")), state_words)
    yield made
    made.close()


def test_nothing_is_done_while_all_is_open(made, state_words, monkeypatch):
    asleep = threading.Semaphore(0)
    sleep = rescue.sleep_while

    def noted(*seen):
        asleep.release()
        sleep(*seen)

    monkeypatch.setattr(rescue, "sleep_while", noted)
    waits = Waits()
    made.add(waits)
    assert asleep.acquire(timeout=PATIENCE_S)
    assert not asleep.acquire(timeout=0.3)  # nothing woke it
    made.close()
    assert not waits.released.acquire(blocking=False)


def test_what_waits_is_set_free_at_the_end_of_the_graph(made, state_words, monkeypatch):
    monkeypatch.setattr(rescue, "_LOOK_S", PATIENCE_S)
    waits = Waits()
    made.add(waits)
    set_state(state_words, BROKEN)
    assert waits.released.acquire(timeout=PATIENCE_S / 2)


def test_so_it_is_when_the_death_of_its_driver_breaks_it(made, state_segment, monkeypatch):
    monkeypatch.setattr(rescue, "_LOOK_S", PATIENCE_S)
    waits = Waits()
    made.add(waits)
    mark_broken(state_segment.fd)
    assert waits.released.acquire(timeout=PATIENCE_S / 2)


def test_a_peer_may_die_in_the_middle_of_the_end(made, state_words):
    waits = Waits()
    made.add(waits)
    set_state(state_words, CLOSED)
    for _ in range(3):
        assert waits.released.acquire(timeout=PATIENCE_S)


@pytest.mark.parametrize("state", [OPEN, CLOSED])
def test_closing_ends_the_thread(state_words, state):
    device = FakeDevice(Settings(""))
    for _ in range(100):
        one = Rescue(device, state_words)
        one.add(Waits())
        set_state(state_words, state)
        one.close()
        one.close()
        set_state(state_words, OPEN)
        assert "gpu rescue" not in {thread.name for thread in threading.enumerate()}
