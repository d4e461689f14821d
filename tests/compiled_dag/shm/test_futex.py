from __future__ import annotations

import ctypes
import threading
import time

import pytest

from compiled_dag.shm.futex import Timespec, fence, futex_wait, futex_wake

FAR = Timespec.of(60)


@pytest.mark.parametrize(
    ("seconds", "whole", "nanoseconds"),
    [(0, 0, 0), (0.25, 0, 250_000_000), (3.5, 3, 500_000_000)],
)
def test_a_time_is_seconds_and_nanoseconds(seconds, whole, nanoseconds) -> None:
    spec = Timespec.of(seconds)
    assert (spec.seconds, spec.nanoseconds) == (whole, nanoseconds)


def test_a_word_that_has_changed_is_not_slept_on() -> None:
    word = ctypes.c_uint(5)
    futex_wait(ctypes.c_void_p(ctypes.addressof(word)), 4, FAR)


def test_sleep_ends_with_its_time() -> None:
    word = ctypes.c_uint(5)
    futex_wait(ctypes.c_void_p(ctypes.addressof(word)), 5, Timespec.of(0.001))


@pytest.mark.parametrize("value", [1 << 31, (1 << 32) - 1])
def test_all_values_of_a_word_can_be_slept_on(value) -> None:
    word = ctypes.c_uint(value)
    start = time.monotonic()
    futex_wait(ctypes.c_void_p(ctypes.addressof(word)), value, Timespec.of(0.02))
    assert time.monotonic() - start >= 0.02  # taken for another value, it would return at once


def test_a_wake_up_reaches_every_sleeper() -> None:
    word = ctypes.c_uint(1)
    address = ctypes.c_void_p(ctypes.addressof(word))
    sleepers = [threading.Thread(target=futex_wait, args=(address, 1, FAR)) for _ in range(3)]
    for thread in sleepers:
        thread.start()
    # Changed first: a sleeper that comes late sees it, one that sleeps already is woken.
    word.value = 2
    futex_wake(address)
    for thread in sleepers:
        thread.join(120)
        assert not thread.is_alive()


def test_the_fence_can_be_used_from_any_thread() -> None:
    threads = [threading.Thread(target=lambda: [fence() for _ in range(100)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
