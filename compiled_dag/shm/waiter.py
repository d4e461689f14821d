"""How a process waits: the one policy for channels, collectives and mailbox.

Look a few times; then give the core away with ``sched_yield`` while it comes back quickly; then
sleep on the process's doorbell in bounded slices. Measured on two cores (chains of 1 to 8 actors,
with and without a CPU hog): yielding is 10 to 30 times faster than sleeping while peers run, and
collapses to whole scheduler slices (milliseconds) as soon as somebody who does not yield has the
core. Hence the penalty: one yield that took over 500 us ends the yielding at once and skips it for
the next 2^n waits; n rises to 10 and falls by one after 8 good waits (without that decay one early
slow yield left a process sleeping for good).

The GIL is given back in ``sched_yield`` and in the futex, not while looking (under 1 us).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Literal

from compiled_dag.shm.board import Doorbell
from compiled_dag.shm.futex import Timespec

WaitMode = Literal["latency", "balanced", "eco"]

_LOOKS: Final = 12
_SLOW_YIELD_S: Final = 500e-6
_MAX_BACKOFF: Final = 10
_GOOD_WAITS: Final = 8
_YIELD_S: Final[dict[WaitMode, float]] = {"latency": 5e-3, "balanced": 200e-6, "eco": 0.0}

SLICE_S: Final = 0.1
"""Longest sleep without looking; also how long a lost wake-up could cost."""
_SLICE: Final = Timespec.of(SLICE_S)

Words = memoryview
Guard = Callable[[], None]


class Waiter:
    """The waiting policy with what it has learnt; one per thread that waits often."""

    __slots__ = ("_backoff", "_doorbell", "_good", "_skip", "_yield_s", "sleeps")

    def __init__(self, doorbell: Doorbell, mode: WaitMode = "balanced") -> None:
        self._doorbell = doorbell
        self._yield_s = _YIELD_S[mode]
        self._backoff = 0
        self._good = 0
        self._skip = 0
        self.sleeps = 0
        """How often this waiter slept (for reports and tests)."""

    def word(
        self, words: Words, index: int, seen: int, guard: Guard, deadline: float | None = None
    ) -> bool:
        """Wait until ``words[index] != seen``.

        Args:
            words: A shared 32- or 64-bit view.
            index: Which word.
            seen: The value to wait away from.
            guard: Called before and after each sleep; raises to end the wait.
            deadline: `time.monotonic` value to give up at, or None.

        Returns:
            True if the word changed, False at the deadline.
        """
        for _ in range(_LOOKS):
            if words[index] != seen:
                return True
        if self._skip:
            self._skip -= 1
        else:
            yield_, clock = os.sched_yield, time.monotonic
            before = start = clock()
            end = start + self._yield_s
            while before < end:
                yield_()
                if words[index] != seen:
                    self._count_good()
                    return True
                now = clock()
                if now - before > _SLOW_YIELD_S:
                    self._count_slow()
                    break
                before = now
        return self._sleep(lambda: words[index] != seen, guard, deadline)

    def until(
        self, ready: Callable[[], bool], guard: Guard, deadline: float | None = None
    ) -> bool:
        """Wait until `ready()` is true; otherwise as `word`."""
        for _ in range(_LOOKS):
            if ready():
                return True
        if self._skip:
            self._skip -= 1
        else:
            yield_, clock = os.sched_yield, time.monotonic
            before = start = clock()
            end = start + self._yield_s
            while before < end:
                yield_()
                if ready():
                    self._count_good()
                    return True
                now = clock()
                if now - before > _SLOW_YIELD_S:
                    self._count_slow()
                    break
                before = now
        return self._sleep(ready, guard, deadline)

    def _sleep(self, ready: Callable[[], bool], guard: Guard, deadline: float | None) -> bool:
        doorbell = self._doorbell
        while True:
            timeout = _SLICE
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return ready()
                if left < SLICE_S:
                    timeout = Timespec.of(left)
            token = doorbell.arm()
            try:
                guard()
                if ready():
                    return True
                self.sleeps += 1
                doorbell.sleep(token, timeout)
                guard()
                if ready():
                    return True
            finally:
                doorbell.disarm()

    def _count_good(self) -> None:
        self._good += 1
        if self._good >= _GOOD_WAITS:
            self._good = 0
            self._backoff = max(self._backoff - 1, 0)

    def _count_slow(self) -> None:
        self._backoff = min(self._backoff + 1, _MAX_BACKOFF)
        self._skip = 1 << self._backoff
        self._good = 0
