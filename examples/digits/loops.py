"""The loops that the driver runs over actors: a compiled graph, and a call for each method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

import runtime
from digits.data import draw_batches
from digits.timing import StepTimes, critical_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from compiled_dag import CompiledDAG
    from digits.replica import Plan

Worker: TypeAlias = Any
"""A handle on an actor that is a `digits.replica.Replica`."""
RankReport: TypeAlias = tuple[float, float, float]
"""What `Replica.step` returns."""

IN_FLIGHT = 2
"""Executions of a training step under way: with two, no worker waits for the driver."""


def execute_all(
    train_step: CompiledDAG, batches: Iterable[NDArray[np.int64]], in_flight: int = IN_FLIGHT
) -> Iterator[list[RankReport]]:
    """Execute the graph once a batch; yield what the ranks report, step by step.

    The next batches are on their way before a report is waited for.
    """
    refs: deque[Any] = deque()
    for batch in batches:
        refs.append(train_step.execute(batch))
        if len(refs) == in_flight:
            yield runtime.get(refs.popleft())
    while refs:
        yield runtime.get(refs.popleft())


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
        for reports in self.train(batches):
            methods_s.append([report[1:] for report in reports])
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
    def train(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[list[RankReport]]:
        """Train on the batches; yield what the ranks' `Replica.step` returned, step by step."""


class CompiledLoop(ActorLoop):
    """A step is one execution of the compiled graph."""

    allreduces = True

    def __init__(
        self,
        workers: Sequence[Worker],
        seed: int,
        train_step: CompiledDAG,
        *,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        super().__init__(workers, seed)
        self._train_step = train_step
        self._in_flight = in_flight
        self.name = "compiled graph" if in_flight > 1 else "  a step at a time"

    def train(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[list[RankReport]]:
        """Execute the graph."""
        return execute_all(self._train_step, batches, self._in_flight)


class RemoteLoop(ActorLoop):
    """A step calls each worker twice; the driver averages the gradients in between."""

    name = ".remote() calls"
    allreduces = False

    def train(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[list[RankReport]]:
        """Call `backward`, average, call `step`."""
        for batch in batches:
            buckets = runtime.get([worker.backward.remote(batch) for worker in self._workers])
            gradient = runtime.put(torch.stack(buckets).mean(dim=0))
            yield runtime.get([worker.step.remote(gradient) for worker in self._workers])
