"""Pass: tensors are received while the method before the one that needs them runs.

A read whose tensors the GPU copies goes in front of the compute step before it, and of that only:
copies for the next method and the kernels of this one are then on the GPU at the same time. No step
is moved across another that communicates, so everybody's communication stays in the one order; what
can change is only that an actor's host waits for a value before it calls a method, not after. That
nobody waits for ever is proved as always (`compiled_dag.simulate`). It holds for reads that are
meetings, too: these are in the one order, and a method waits for nobody.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from compiled_dag.program import Compute, Read, Release

if TYPE_CHECKING:
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.program import Program, Step


def prefetch_reads(program: Program) -> Program:
    """Return `program` with reads for GPUs one method earlier, where they can be."""
    driver, *actors = program.steps
    moved = (_earlier(steps, program.channels, n) for n, steps in enumerate(actors, 1))
    return dataclasses.replace(program, steps=(driver, *moved))


def _earlier(
    steps: tuple[Step, ...], channels: tuple[ChannelSpec, ...], participant: int
) -> tuple[Step, ...]:
    found: list[Step] = []
    for step in steps:
        place = len(found)
        if isinstance(step, Read) and channels[step.channel].transport.is_for_gpu(participant):
            place = _place(found)
        found.insert(place, step)
    return tuple(found)


def _place(before: list[Step]) -> int:
    """Return where a read goes that comes after these steps: in front of the last method."""
    at = len(before)
    while at and isinstance(before[at - 1], Release):
        at -= 1
    return at - 1 if at and isinstance(before[at - 1], Compute) else len(before)
