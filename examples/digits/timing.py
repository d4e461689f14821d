"""Where the time of a training step goes, for several loops that do the same work.

A step's *compute* is the time inside the replicas' methods along the longest path: the slowest
`backward`, then the slowest `step` (between the two every rank waits for the others). The rest of
the step is *outside* of them: the *allreduce* call, and the loop's own *overhead*, which starts
methods, moves data and waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from digits.replica import Plan

STEPS_PER_BLOCK = 60
NUM_UNTIMED_STEPS = 20
"""Processes that slept while another loop ran wake up on one core; it takes the system's scheduler
tens of milliseconds to spread them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of consecutive steps, one entry a step."""

    step_s: NDArray[np.float64]
    compute_s: NDArray[np.float64]
    allreduce_s: NDArray[np.float64]
    """What the rank that came last spent in the call, waiting for nobody; 0 if nobody knows."""

    @staticmethod
    def join(parts: Sequence[StepTimes]) -> StepTimes:
        """Put the steps of several runs in a row."""
        return StepTimes(
            step_s=np.concatenate([part.step_s for part in parts]),
            compute_s=np.concatenate([part.compute_s for part in parts]),
            allreduce_s=np.concatenate([part.allreduce_s for part in parts]),
        )

    def pick(self, which: slice | NDArray[np.int64]) -> StepTimes:
        """Return some of the steps."""
        return StepTimes(
            step_s=self.step_s[which],
            compute_s=self.compute_s[which],
            allreduce_s=self.allreduce_s[which],
        )

    def typical(self) -> StepTimes:
        """Return the median step and its neighbours: a fifth of all steps, ranked by duration.

        Their means add up, which the medians of parts of a step need not do.
        """
        count = len(self.step_s)
        return self.pick(np.argsort(self.step_s)[count * 2 // 5 : count * 3 // 5 + 1])


class Loop(Protocol):
    """One way to drive the replicas."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    @property
    def allreduces(self) -> bool:
        """Tell whether the ranks reduce among themselves."""
        ...

    def reset(self, plan: Plan) -> None:
        """Bring all ranks back to the initial parameters."""
        ...

    def run(self, steps: range) -> StepTimes:
        """Train on the batches of these steps."""
        ...

    def parameters(self) -> NDArray[Any]:
        """Return the parameters of rank 0."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFigures:
    """One loop's median step, and where its time goes."""

    name: str
    step_s: float
    compute_s: float
    outside_s: float
    allreduce_s: float
    overhead_s: float
    samples_per_s: float
    ratio_to_raw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The loops side by side, at one batch size."""

    batch_size: int
    num_timed_steps: int
    loops: tuple[LoopFigures, ...]
    apart: float
    """How far apart the loops' parameters are after the same steps; only rounding is allowed."""


def critical_path(method_s: ArrayLike) -> NDArray[np.float64]:
    """Add up each step's slowest call of every method; the shape is (steps, ranks, methods)."""
    longest: NDArray[np.float64] = np.asarray(method_s, dtype=np.float64).max(axis=1).sum(axis=1)
    return longest


def distance(vector: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the norm of the difference over the norm of the reference."""
    # In float64, or a float32 norm would add rounding of its own.
    reference = reference.astype(np.float64)
    return float(np.linalg.norm(vector - reference) / np.linalg.norm(reference))


def compare(loops: Sequence[Loop], plan: Plan, rounds: int) -> Comparison:
    """Time the loops in turn, block by block, so that whatever disturbs one disturbs all.

    The last one is what the others are compared with.

    Each loop first runs one untimed block from the initial parameters. That warms it up, and where
    it ends shows that it does the same work as the others.
    """
    ends = [_first_block(loop, plan) for loop in loops]
    blocks: list[list[StepTimes]] = [[] for _ in loops]
    for number in range(1, rounds + 1):
        steps = range(number * STEPS_PER_BLOCK, (number + 1) * STEPS_PER_BLOCK)
        for loop, timed in zip(loops, blocks, strict=True):
            timed.append(loop.run(steps).pick(slice(NUM_UNTIMED_STEPS, None)))
    return Comparison(
        batch_size=plan.batch_size,
        num_timed_steps=rounds * (STEPS_PER_BLOCK - NUM_UNTIMED_STEPS),
        loops=_figures(loops, [StepTimes.join(timed) for timed in blocks], plan.batch_size),
        apart=max(distance(end, ends[-1]) for end in ends),
    )


def _first_block(loop: Loop, plan: Plan) -> NDArray[Any]:
    loop.reset(plan)
    loop.run(range(STEPS_PER_BLOCK))
    return loop.parameters()


def _figures(
    loops: Sequence[Loop], times: Sequence[StepTimes], batch_size: int
) -> tuple[LoopFigures, ...]:
    raw = times[-1]
    raw_step_s = float(np.median(raw.step_s))
    # The graph's allreduce is the raw loop's call, on the same bucket.
    raw_allreduce_s = float(raw.typical().allreduce_s.mean())
    figures = []
    for loop, of_loop in zip(loops, times, strict=True):
        typical = of_loop.typical()
        step_s = float(np.median(of_loop.step_s))
        outside_s = float((typical.step_s - typical.compute_s).mean())
        allreduce_s = raw_allreduce_s if loop.allreduces else 0.0
        figures.append(
            LoopFigures(
                name=loop.name,
                step_s=step_s,
                compute_s=float(typical.compute_s.mean()),
                outside_s=outside_s,
                allreduce_s=allreduce_s,
                overhead_s=outside_s - allreduce_s,
                samples_per_s=batch_size / step_s,
                ratio_to_raw=step_s / raw_step_s,
            )
        )
    return tuple(figures)
