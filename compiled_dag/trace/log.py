"""What the driver did with a graph lately, its executes and gets; and which are recorded.

Not in the segment, as the actors' rings are: only the driver reads traces, and what it keeps for
itself costs less, is never torn, and may come from any of its threads.

Recording an execution takes about a microsecond, more with many steps. While that is under 2 % of
the time from one execution to the next, all are recorded; where they follow faster, those whose
number is a multiple of 16, which makes it 1 % again. The time is a running mean, so that executions
started in bursts count as what they are. Everybody looks at one mask, in the graph's header.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from compiled_dag.channel.layout import TRACE_MASK_WORD

if TYPE_CHECKING:
    from compiled_dag.channel.reader import Reader

_MOST: Final = 2048
_MOST_TAKEN: Final = 4 * _MOST
SAMPLED: Final = 15
"""Mask of the numbers of executions, of which 16 then count as one."""
_EXECUTION_NS, _STEP_NS, _SHARE = 1200, 200, 0.02
_LONG: Final = 20
"""Pauses count as this many times the time under which executions are sampled."""
_MEAN_OF: Final = 8


class Submitted(NamedTuple):
    """An `execute` that wrote its inputs; times are of the monotonic clock."""

    execution: int
    begin_ns: int
    end_ns: int


class Taken(NamedTuple):
    """A result read off its channel."""

    channel: int
    execution: int
    since_ns: int
    """When somebody began to wait for it; 0 if nobody had."""
    end_ns: int


class Log:
    """Bounded records, as plain tuples: these cost least."""

    __slots__ = ("_last", "_limit_ns", "_mean_ns", "_words", "mask", "submitted", "taken")

    def __init__(self, num_channels: int, num_steps: int, words: memoryview) -> None:
        """Begin empty.

        Args:
            num_channels: How many channels the driver reads and writes.
            num_steps: Of the longest program.
            words: The graph's segment.
        """
        self.mask = 0
        """An execution is recorded if its number has none of these bits."""
        self.submitted: deque[tuple[int, int, int]] = deque(maxlen=_MOST)
        """Fields of `Submitted`."""
        self.taken: deque[tuple[int, int, int, int]] = deque(
            maxlen=min(_MOST * max(num_channels, 1), _MOST_TAKEN)
        )
        """Fields of `Taken`."""
        self._words = words
        self._limit_ns = (_EXECUTION_NS + num_steps * _STEP_NS) / _SHARE
        self._mean_ns = _LONG * self._limit_ns
        self._last = 0, 0

    def sent(self, execution: int, begin_ns: int) -> None:
        """Record that inputs were sent just now."""
        now = time.monotonic_ns()
        self.submitted.append((execution, begin_ns, now))
        last, then = self._last
        self._last = execution, now
        if execution > last:
            between = min((now - then) / (execution - last), _LONG * self._limit_ns)
            self._mean_ns += (between - self._mean_ns) / _MEAN_OF
            # Twice as long until all are recorded again: no back and forth at the limit.
            limit = 2 * self._limit_ns if self.mask else self._limit_ns
            mask = SAMPLED if self._mean_ns < limit else 0
            if mask != self.mask:
                self.mask = self._words[TRACE_MASK_WORD] = mask

    def took(self, reader: Reader, execution: int, since_ns: int) -> None:
        """Record that a result was taken just now."""
        self.taken.append((reader.spec.index, execution, since_ns, time.monotonic_ns()))

    def read(self) -> tuple[list[Submitted], list[Taken]]:
        """Return what there is."""
        # A deque that grows while it is iterated raises; copy() does it in one go under the GIL.
        submitted, taken = self.submitted.copy(), self.taken.copy()
        return [Submitted(*one) for one in submitted], [Taken(*one) for one in taken]
