"""What must hold for a run to have succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from digits.options import DEFAULT_EPOCHS

if TYPE_CHECKING:
    from digits.options import Options
    from digits.timing import Comparison

ACCURACY_GOAL = 0.96
MIN_STEPS = 100
"""Whoever trains for fewer steps, in fewer or larger batches, asked for less accuracy."""
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One of the things that must hold, and whether it does."""

    holds: bool
    text: str


def check_parameters(distance: float, dtype: str) -> Check:
    """Judge the distance from the parameters of the single-process run."""
    limit = TOLERANCE[dtype]
    holds = distance <= limit
    verb, sign = ("match", "<=") if holds else ("differ from", ">")
    text = f"parameters {verb} the single-process run: {distance:.1e} {sign} {limit:g}"
    return Check(holds=holds, text=text)


def check_same_work(comparison: Comparison, dtype: str) -> Check:
    """Judge how far apart the timed loops' parameters are."""
    limit = TOLERANCE[dtype]
    holds = comparison.apart <= limit
    verb, sign = ("reach", "<=") if holds else ("do not reach", ">")
    loops = f"the timed loops at batch size {comparison.batch_size}"
    return Check(
        holds=holds,
        text=f"{loops} {verb} the same parameters: {comparison.apart:.1e} {sign} {limit:g}",
    )


def check_accuracy(accuracy: float, options: Options) -> Check:
    """Judge the accuracy, if training was long enough to judge it."""
    reached = f"test accuracy {accuracy:.4f}"
    if options.epochs < DEFAULT_EPOCHS or options.steps < MIN_STEPS:
        return Check(holds=True, text=f"{reached} (too short a training to judge it)")
    holds = accuracy >= ACCURACY_GOAL
    return Check(holds=holds, text=f"{reached} {'>=' if holds else '<'} {ACCURACY_GOAL}")
