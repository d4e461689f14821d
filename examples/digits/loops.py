"""The two loops that the driver runs over actors: a compiled graph, and a call for each method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

import runtime
from digits.data import draw_batches
from digits.timing import StepTimes, critical_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from compiled_dag import CompiledDAG
    from digits.replica import Plan

Worker: TypeAlias = Any
"""A handle on an actor that is a `digits.replica.Replica`."""
RankReport: TypeAlias = tuple[float, float, float]
"""What `Replica.step` returns."""


class ActorLoop(ABC):
    """What both loops do alike."""

    name: str
    allreduces: bool

    def __init__(self, workers: Sequence[Worker], seed: int) -> None:
        self._workers = workers
        self._seed = seed
        self._batch_size = 1

    def reset(self, plan: Plan) -> None:
        """Bring all workers back to the initial parameters."""
        self._batch_size = plan.batch_size
        runtime.get([worker.reset.remote(plan) for worker in self._workers])

    def run(self, steps: range) -> StepTimes:
        """Train on the batches of these steps; a step's time starts where the last one ended."""
        batches = draw_batches(self._seed, self._batch_size, steps)
        ends, methods_s = [perf_counter()], []
        for batch in batches:
            methods_s.append([report[1:] for report in self.step(batch)])
            ends.append(perf_counter())
        return StepTimes(
            step_s=np.diff(ends),
            compute_s=critical_path(methods_s),
            allreduce_s=np.zeros(len(batches)),
        )

    def parameters(self) -> NDArray[Any]:
        """Return the parameters of rank 0."""
        vector: NDArray[Any] = runtime.get(self._workers[0].parameters.remote())
        return vector

    @abstractmethod
    def step(self, batch: NDArray[np.int64]) -> list[RankReport]:
        """Train on one batch; return what each rank's `Replica.step` returned."""


class CompiledLoop(ActorLoop):
    """A step is one execution of the compiled graph."""

    name = "compiled graph"
    allreduces = True

    def __init__(self, workers: Sequence[Worker], seed: int, train_step: CompiledDAG) -> None:
        super().__init__(workers, seed)
        self._train_step = train_step

    def step(self, batch: NDArray[np.int64]) -> list[RankReport]:
        """Execute the graph."""
        reports: list[RankReport] = runtime.get(self._train_step.execute(batch))
        return reports


class RemoteLoop(ActorLoop):
    """A step calls each worker twice; the driver averages the gradients in between."""

    name = ".remote() calls"
    allreduces = False

    def step(self, batch: NDArray[np.int64]) -> list[RankReport]:
        """Call `backward`, average, call `step`."""
        buckets = runtime.get([worker.backward.remote(batch) for worker in self._workers])
        gradient = runtime.put(torch.stack(buckets).mean(dim=0))
        reports: list[RankReport] = runtime.get(
            [worker.step.remote(gradient) for worker in self._workers]
        )
        return reports
