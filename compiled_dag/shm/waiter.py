"""How a process waits: the one policy for channels, collectives and mailbox.

Look a few times; then give the core away with ``sched_yield`` while that is worth it; then sleep on
the process's doorbell in bounded slices. Measured on two cores (chains of 1 to 8 actors, with and
without a CPU hog): yielding is 10 to 30 times faster than sleeping while peers run. It is not worth
it in two cases, which are learnt:

* *Somebody who does not yield has the core.* Then a yield comes back after a whole scheduler
  slice (milliseconds). One yield that took over 500 us ends the yielding at once and skips it for
  the next 2^n waits of this waiter, also if what was waited for came meanwhile: asleep, it would
  have taken 20 us. n begins with 1, rises by one each time up to 13, and falls by one after 16 good
  waits in a row. So a program that takes the core in bursts costs little more than these: with 7
  to begin with, since 128 waits asleep cost what the slice did, and 64 good ones, chains of 4 took
  116 us beside bursts, not 35, and 1 MiB 97 us, not 61. A hog costs a dozen slices at first, and
  chains beside it took no longer; with 8 good waits a chain of 1 did once of two (32 us, not 27).
  Where yields are skipped a wait looks once before it sleeps: eleven looks more took 0.4 us of it.
* *What is waited for takes long.* Then yielding only takes time from those who work. Every place
  that waits has a `Site`, a two-bit predictor as in a branch unit: after two waits longer than
  400 us it sleeps at once, after two short ones it yields again.

A place can also be told not to yield (`calm`).

``COMPILED_DAG_WAIT_MODE`` sets how long to yield: ``latency`` (5 ms), ``balanced`` (200 us) or
``eco`` (not at all). The GIL is given back in ``sched_yield`` and in the futex, not while looking
(under 1 us).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, Literal

from compiled_dag.shm.futex import Timespec

if TYPE_CHECKING:
    from compiled_dag.shm.board import Doorbell

WaitMode = Literal["latency", "balanced", "eco"]

_MODE_VARIABLE: Final = "COMPILED_DAG_WAIT_MODE"
_LOOKS: Final = range(12)
_LOOK_ONCE: Final = range(1)
"""Before a wait that sleeps because yields were slow: who has the core then keeps it for long."""
_SLOW_YIELD_S: Final = 500e-6
_MAX_BACKOFF: Final = 13
_GOOD_WAITS: Final = 16
_BETWEEN_YIELDS_S: Final = 2e-6
"""In an event loop, where many waits may take turns: one yield is enough for all of them."""
_YIELD_S: Final[dict[WaitMode, float]] = {"latency": 5e-3, "balanced": 200e-6, "eco": 0.0}
_LONG_S: Final = 400e-6
"""What counts as long, or twice the yield budget: a chain of 8 actors that sleep takes 250 us."""
_LONG: Final = 2
_LONGEST: Final = 3

SLICE_S: Final = 0.1
"""Longest sleep without looking; also how long a lost wake-up could cost."""
_SLICE: Final = Timespec.of(SLICE_S)

Words = memoryview
Guard = Callable[[], None]
Source = tuple[Words, int, int]
"""Words, which of them, and the value to wait away from."""


def mode_from_environment() -> WaitMode:
    """Return the mode ``COMPILED_DAG_WAIT_MODE`` asks for.

    Raises:
        ValueError: It is none of the modes.
    """
    given = os.environ.get(_MODE_VARIABLE, "balanced")
    for mode in _YIELD_S:
        if mode == given:
            return mode
    modes = ", ".join(_YIELD_S)
    msg = f"environment variable {_MODE_VARIABLE}={given!r} is none of {modes}"
    raise ValueError(msg)


class Site:
    """A place that waits, and whether its waits have been long: 0 (surely not) to 3 (surely)."""

    __slots__ = ("calm", "length", "slice", "slice_s")

    def __init__(self, *, calm: bool = False, slice_s: float = SLICE_S) -> None:
        self.calm = calm
        """Whether waits here must not yield."""
        self.slice_s = slice_s
        """Longest sleep without looking."""
        self.slice = _SLICE if slice_s == SLICE_S else Timespec.of(slice_s)
        self.length = 0

    @property
    def is_long(self) -> bool:
        """Whether the next wait here will sleep at once."""
        return self.length >= _LONG


class Waiter:
    """The waiting policy with what it has learnt; one per thread that waits often."""

    __slots__ = (
        "_anywhere",
        "_backoff",
        "_doorbell",
        "_good",
        "_long_s",
        "_mode",
        "_skip",
        "_yield_s",
        "_yielded",
        "sleeps",
    )

    def __init__(self, doorbell: Doorbell, mode: WaitMode | None = None) -> None:
        """Make a waiter for this thread.

        Args:
            doorbell: The process's doorbell.
            mode: How long to yield; None takes ``COMPILED_DAG_WAIT_MODE``, or ``"balanced"``.

        Raises:
            ValueError: The variable names no mode.
        """
        self._doorbell = doorbell
        self._mode: WaitMode | None = mode
        self._yield_s = _YIELD_S[mode or mode_from_environment()]
        self._long_s = max(2 * self._yield_s, _LONG_S)
        self._anywhere = Site()
        self._backoff = 0
        self._good = 0
        self._skip = 0
        self._yielded = 0.0
        self.sleeps = 0
        """How often this waiter slept (for reports and tests)."""

    def twin(self) -> Waiter:
        """Return a waiter for another thread of this process."""
        return Waiter(self._doorbell, self._mode)

    def word(
        self,
        words: Words,
        index: int,
        seen: int,
        guard: Guard,
        deadline: float | None = None,
        site: Site | None = None,
    ) -> bool:
        """Wait until ``words[index] != seen``.

        Args:
            words: A shared 32- or 64-bit view.
            index: Which word.
            seen: The value to wait away from.
            guard: Called before and after each sleep; raises to end the wait.
            deadline: `time.monotonic` value to give up at, or None.
            site: What was learnt about the caller's waits; None for those of no one place.

        Returns:
            True if the word changed, False at the deadline.
        """
        # The same as `until`, without a call per look: this is the wait between two actors.
        for _ in _LOOK_ONCE if self._skip else _LOOKS:
            if words[index] != seen:
                return True
        site = site or self._anywhere
        start = time.monotonic()
        if self._yields(words, index, seen, site, start):
            return True
        return self._sleep(lambda: words[index] != seen, guard, site, start, deadline)

    def soon(self, words: Words, index: int, seen: int, site: Site) -> bool:
        """Do the first part of `word`: look, and yield where that is worth it, but never sleep.

        Whoever waits on after False counts the wait; nothing is learnt here.
        """
        for _ in _LOOK_ONCE if self._skip else _LOOKS:
            if words[index] != seen:
                return True
        return not self._skip and self._yields(words, index, seen, site, time.monotonic())

    def _yields(self, words: Words, index: int, seen: int, site: Site, start: float) -> bool:
        """Yield until the word changed; False if it is not, or no longer, worth it."""
        if self._skip:  # `_may_yield`, without a call
            self._skip -= 1
            return False
        if site.length >= _LONG or site.calm:
            return False
        yield_, clock = os.sched_yield, time.monotonic
        before, end = start, start + self._yield_s
        while before < end:
            yield_()
            now = clock()
            if now - before > _SLOW_YIELD_S:  # first: it may have come in that time
                self._count_slow()
                return False
            if words[index] != seen:
                if site.length or self._backoff:
                    self._count_good(site)
                return True
            before = now
        return False

    def either(
        self, one: Source, other: Source, guard: Guard, site: Site, deadline: float | None = None
    ) -> bool:
        """Wait until one of two words is not what it was; otherwise as `word`."""
        # The same again, for the wait of an actor's loop: with more processes than cores every
        # turn of yields on a core goes through one turn of this loop in each of them.
        words, index, seen = one
        others, other_index, other_seen = other
        for _ in _LOOK_ONCE if self._skip else _LOOKS:
            if words[index] != seen or others[other_index] != other_seen:
                return True
        yield_, clock = os.sched_yield, time.monotonic
        start = clock()
        if self._may_yield(site):
            before, end = start, start + self._yield_s
            while before < end:
                yield_()
                now = clock()
                if now - before > _SLOW_YIELD_S:  # first: it may have come in that time
                    self._count_slow()
                    break
                if words[index] != seen or others[other_index] != other_seen:
                    if site.length or self._backoff:
                        self._count_good(site)
                    return True
                before = now

        def ready() -> bool:
            return words[index] != seen or others[other_index] != other_seen

        return self._sleep(ready, guard, site, start, deadline)

    def any_of(self, one: Source, other: Source, third: Source, guard: Guard, site: Site) -> bool:
        """Wait until one of three words is not what it was; otherwise as `word`."""
        # And again, up to the yields, for actors in several graphs.
        words, index, seen = one
        others, other_index, other_seen = other
        thirds, third_index, third_seen = third
        for _ in _LOOK_ONCE if self._skip else _LOOKS:
            if words[index] != seen:
                return True
            if others[other_index] != other_seen or thirds[third_index] != third_seen:
                return True

        def ready() -> bool:
            return (
                words[index] != seen
                or others[other_index] != other_seen
                or thirds[third_index] != third_seen
            )

        return self.until(ready, guard, None, site)

    def until(
        self,
        ready: Callable[[], bool],
        guard: Guard,
        deadline: float | None = None,
        site: Site | None = None,
    ) -> bool:
        """Wait until `ready()` is true; otherwise as `word`."""
        for _ in _LOOK_ONCE if self._skip else _LOOKS:
            if ready():
                return True
        site = site or self._anywhere
        yield_, clock = os.sched_yield, time.monotonic
        start = clock()
        if self._may_yield(site):
            before, end = start, start + self._yield_s
            while before < end:
                yield_()
                now = clock()
                if now - before > _SLOW_YIELD_S:  # first: it may have come in that time
                    self._count_slow()
                    break
                if ready():
                    if site.length or self._backoff:
                        self._count_good(site)
                    return True
                before = now
        return self._sleep(ready, guard, site, start, deadline)

    def until_soon(self, ready: Callable[[], bool], site: Site) -> bool:
        """Yield until `ready()`, which rings no doorbell; False if something else has to wait."""
        if ready():
            return True
        clock = time.monotonic
        before = clock()
        end = before + self._yield_s if self._may_yield(site) else before
        while before < end:
            os.sched_yield()
            now = clock()
            if now - before > _SLOW_YIELD_S:
                self._count_slow()
                return ready()
            if ready():
                self._count_good(site)
                return True
            before = now
        return False

    def turns(self, ready: Callable[[], bool], site: Site) -> Generator[None, None, bool]:
        """Do the first part of `until` for an event loop: look, and yield once a turn of the loop.

        Returns:
            True if `ready()`; False if it is not and yielding is not, or no longer, worth it.
        """
        if ready():
            return True
        clock = time.monotonic
        start = clock()
        if not self._may_yield(site):
            return False
        end, now = start + self._yield_s, start
        # Many may wait at once: one that finds the core taken stops them all (`_skip`).
        while now < end and not self._skip:
            if now - self._yielded >= _BETWEEN_YIELDS_S:
                os.sched_yield()
                self._yielded = clock()
                if self._yielded - now > _SLOW_YIELD_S:
                    self._count_slow()
                if ready():
                    break
            yield
            if ready():
                break
            now = clock()
        else:
            return False
        self._count_good(site)
        return True

    def learn(self, site: Site, start: float, *, soon: bool = False) -> None:
        """Count a wait that began at `start` and slept (`soon`: did not end in `until_soon`)."""
        long = time.monotonic() - start > (self._yield_s if soon else self._long_s)
        site.length = min(site.length + 1, _LONGEST) if long else max(site.length - 1, 0)

    def _may_yield(self, site: Site) -> bool:
        if self._skip:
            self._skip -= 1
            return False
        return site.length < _LONG and not site.calm

    def yields(self, site: Site) -> bool:
        """Tell whether the next wait at `site` yields, and the last yields returned soon."""
        ceased = self._skip or site.calm or site.length >= _LONG
        return not ceased and self._yield_s > 0

    def _sleep(
        self,
        ready: Callable[[], bool],
        guard: Guard,
        site: Site,
        start: float,
        deadline: float | None,
    ) -> bool:
        doorbell, clock = self._doorbell, time.monotonic
        while True:
            timeout = site.slice
            if deadline is not None:
                left = deadline - clock()
                if left <= 0:
                    return ready()
                if left < site.slice_s:
                    timeout = Timespec.of(left)
            token = doorbell.arm()
            try:
                if not ready():  # first: what is there is taken, also after the end
                    guard()
                    self.sleeps += 1
                    doorbell.sleep(token, timeout)
                    if not ready():
                        guard()
                        continue
            finally:
                doorbell.disarm()
            self.learn(site, start)
            return True

    def _count_good(self, site: Site) -> None:
        if site.length:
            site.length -= 1
        self._good += 1
        if self._good >= _GOOD_WAITS:
            self._good = 0
            self._backoff = max(self._backoff - 1, 0)

    def _count_slow(self) -> None:
        self._backoff = min(self._backoff + 1, _MAX_BACKOFF)
        self._skip = 1 << self._backoff
        self._good = 0
