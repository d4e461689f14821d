"""The worst order of two streams, instead of the one that chance makes of them.

What only a missing wait would have ordered goes wrong if the streams happen to be in the other
order. Pauses at random make that likely, and on some day on some machine it does not come about.
So here one stream is `Late`: it goes on only when the other one can do no more. That one's host has
come as far as it may, and the stream itself has done all it was given, or waits. Where the wait is
missing the fault is then certain, however fast or busy the machine is; where it is not, the stream
that waits is what the late one is told of, and nothing may go wrong.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compiled_dag.channel import layout
from compiled_dag.shm.segment import PAGE
from tests.cuda.fake import ASKED, DEFAULT, STILL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cuda.rig import End

CURRENT, RECEIVE = DEFAULT, DEFAULT + 1
"""Streams of an end; the second one where its plan overlaps."""
_LINE: Final = 8
"""Words of a participant: its laps, and from the second on two of each stream."""


@dataclass(frozen=True, kw_only=True)
class Late:
    """One stream, and the one it is behind."""

    stream: tuple[int, int]
    """Of which participant, and which one."""
    point: str
    """Before which calls it waits, as in `rig.Plan.die`."""
    behind: tuple[int, int]
    ahead: int = 0
    """How many laps further than the late one's host the other's has to be."""


class Shown:
    """What the processes of a rig let each other see: how far hosts are, and what streams do."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, PAGE)).cast("Q")

    def laps(self, participant: int) -> int:
        """Return how many laps a host has enqueued."""
        return self._words[participant * _LINE]

    def next_lap(self, participant: int) -> None:
        self._words[participant * _LINE] += 1

    def watch(self, participant: int, stream: int) -> memoryview:
        """Return the words in which a stream is asked whether it stands still, and answers."""
        at = participant * _LINE + 2 + 2 * (stream - DEFAULT)
        return self._words[at : at + 2]


def make_late(end: End, late: Late) -> None:
    """Have a stream of this end be late."""
    driver, stream = end.device.driver, end.device.streams[late.stream[1]]
    before = driver.before_call

    def before_call(name: str) -> None:
        if name == late.point:
            lap = end.shown.laps(end.participant)
            stream.put(lambda: _await_turn(end, late, lap))
        if before is not None:
            before(name)

    driver.before_call = before_call


def _await_turn(end: End, late: Late, lap: int) -> None:
    shown, (other, number) = end.shown, late.behind
    laps = min(lap + 1 + late.ahead, end.plan.laps)
    _until(end, lambda: shown.laps(other) >= laps)
    watch = shown.watch(other, number)
    watch[ASKED] = asked = watch[ASKED] + 1
    _until(end, lambda: watch[STILL] >= asked)


def _until(end: End, ready: Callable[[], bool]) -> None:
    """Wait until something is so, or the graph has ended, as it does when a process dies."""
    while not ready() and end.graph.state == layout.OPEN:
        time.sleep(2e-5)
