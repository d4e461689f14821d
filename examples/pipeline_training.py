"""Train a transformer whose layers are spread over the stages of a pipeline.

    python examples/pipeline_training.py --stages 2 --schedule 1f1b

Every stage is an actor with some of the layers. A batch is cut into micro-batches that go forward
through the stages one behind the other, and back; then each stage takes its step of descent. All of
it is one execution of one graph, and the order in which a stage works is the order in which its
nodes are bound: `--schedule gpipe` goes forward with all micro-batches before it goes back, `1f1b`
goes back as soon as it can, and so keeps fewer of them.

On the cores of one machine, expect about the speed of one process with as many threads: less where
stages wait for each other, more where a single operation is too small for threads. Pipelines are
for models that no single device holds. On a busy machine the one process may take fifty times as
long, since its threads spin while they wait for each other: set OMP_WAIT_POLICY=passive there.

The run checks itself against the same model trained on whole batches in one process. The picture
shows what every stage did when, beside what the order alone would allow.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits.interrupt import end_on_interrupt, interruptible

if __name__ == "__main__":
    end_on_interrupt()  # the imports take seconds

import numpy as np
import torch
from arguments import positive
from digits.devices import on_device
from digits.timing import distance
from pipelines import text
from pipelines.order import SCHEDULES, Task, as_text, in_turn, orders, source
from pipelines.training_report import Figures, draw, show_stages, show_ways, timelines
from pipelines.transformer import (
    Cut,
    Shape,
    add_options,
    build,
    check_options,
    is_near,
    surprise,
    travelling,
)
from pipelines.whole import Descent, Whole, alone
from rich.progress import track
from torch import Tensor

import runtime
from compiled_dag import InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pipelines.text import Tokens

    from compiled_dag import CompiledDAG

BLOCK_STEPS = 5
"""Steps of one way of training before the other has its turn."""
MIN_STEPS = 2 * BLOCK_STEPS
IN_FLIGHT = 2
"""Steps under way: with two no stage waits for the driver."""


class Stage:
    """Some of the layers, and the micro-batches that have yet to come back through them."""

    def __init__(self, shape: Shape, cut: Cut, batches: int) -> None:
        self._cut, self._device, self._batches = cut, shape.device, batches
        self._layers = build(shape, cut)
        self._descent = Descent(self._layers)
        self._held: deque[tuple[Tensor, Tensor]] = deque()
        self._most_held = 0
        self._loss = 0.0

    def forward(self, values: Any, tokens: NDArray[np.int64] | None = None) -> Tensor:
        """Take a micro-batch in: text at the first stage, the stage before's values elsewhere.

        The last stage needs the text too, and returns its share of the batch's loss.
        """
        if self._cut.is_first:
            values = torch.tensor(values[:, :-1], device=self._device)
        else:
            values.requires_grad_()
        result: Tensor = self._layers(values)
        if tokens is not None:
            following = torch.tensor(tokens[:, 1:], device=self._device)
            result = surprise(result, following).mean() / self._batches
            self._loss += result.item()
        self._held.append((values, result))
        self._most_held = max(self._most_held, len(self._held))
        return result.detach()

    def backward(self, gradient: Tensor) -> Tensor | None:
        """Go back with the oldest micro-batch; return the gradient for the stage before."""
        values, result = self._held.popleft()
        result.backward(None if self._cut.is_last else gradient)
        return values.grad

    def step(self, *_done: Any) -> float:
        """Descend; return the loss of the batch, at the last stage."""
        self._descent.step()
        loss, self._loss = self._loss, 0.0
        return loss

    def parameters(self) -> NDArray[Any]:
        """Return a copy of the parameters."""
        vector: NDArray[Any] = self._descent.parameters.cpu().numpy().copy()
        return vector

    def held(self) -> tuple[int, int]:
        """Count the parameters, and the micro-batches that were here at once."""
        return len(self._descent.parameters), self._most_held


def training_step(stages: Sequence[Any], ordered: Sequence[Sequence[Task]], device: str) -> Any:
    """Draw a step: every stage's tasks in their order, then the descent."""
    made: dict[tuple[int, Task], Any] = {}
    with InputNode() as batch:
        for number, task in in_turn(ordered):
            before = source(number, task, len(stages))
            if before is not None:
                given = travelling(made[before, task], device)
            else:  # where micro-batches enter, and where they turn
                given = (
                    batch[task.batch] if task.kind == "F" else made[number, Task("F", task.batch)]
                )
            made[number, task] = bind(stages, number, task, given, batch)
        # Nobody takes a gradient from the first stage: its step has to.
        ends = [[made[0, task] for task in ordered[0] if task.kind == "B"]]
        ends += [[made[number, tasks[-1]]] for number, tasks in enumerate(ordered)][1:]
        return MultiOutputNode(
            [stage.step.bind(*done) for stage, done in zip(stages, ends, strict=True)]
        )


def bind(stages: Sequence[Any], number: int, task: Task, given: Any, batch: Any) -> Any:
    """Draw one task."""
    if task.kind == "B":
        return stages[number].backward.bind(given)
    is_last = number == len(stages) - 1
    return stages[number].forward.bind(given, *([batch[task.batch]] if is_last else []))


class Pipeline:
    """Training by the graph."""

    def __init__(self, shape: Shape, num_stages: int, ordered: Sequence[Sequence[Task]]) -> None:
        make = on_device(Stage, shape.device, num_stages)
        self._batches = len(ordered[0]) // 2
        cuts = [Cut(stage=number, num_stages=num_stages) for number in range(num_stages)]
        self.stages = [make.remote(shape, cut, self._batches) for cut in cuts]
        drawn = training_step(self.stages, ordered, shape.device)
        self.step: CompiledDAG = drawn.experimental_compile()

    def train(self, batches: Sequence[Tokens]) -> list[float]:
        """Execute the graph once a batch; return the losses."""
        losses: list[float] = []
        refs: deque[Any] = deque()
        for batch in batches:
            refs.append(self.step.execute(*np.split(batch, self._batches)))
            if len(refs) == IN_FLIGHT:
                losses.append(runtime.get(refs.popleft())[-1])
        return losses + [runtime.get(ref)[-1] for ref in refs]

    def parameters(self) -> NDArray[Any]:
        """Return all parameters, layer by layer."""
        return np.concatenate(runtime.get([stage.parameters.remote() for stage in self.stages]))

    def held(self) -> list[tuple[int, int]]:
        """Count each stage's parameters, and the micro-batches that were there at once."""
        counts: list[tuple[int, int]] = runtime.get([stage.held.remote() for stage in self.stages])
        return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    try:
        with runtime.init(num_cpus=options.stages):
            return 0 if run(options) else 1
    except (runtime.exceptions.ExecutorError, text.TooShortError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> bool:
    """Train in both ways and show how it went; return whether both came to the same."""
    torch.set_num_threads(options.threads)  # of the one process; the stages have one each
    shape = Shape.of(options)
    ordered = orders(options.schedule, options.stages, options.micro_batches)
    pipeline = Pipeline(shape, options.stages, ordered)
    program = str(pipeline.step.program)
    (options.out / "program.txt").write_text(f"{program}\n", encoding="utf-8")
    print(program[program.index("step |") :])  # what is before it is about memory
    staged = Figures(f"pipeline of {options.stages} stages", pipeline)
    whole = Figures(alone(options.threads), Whole(shape))
    first = whole.way.parameters()
    tokens = text.load(0, text.NUM_TRAINING)
    batches = text.draw(tokens, options.batch_size, shape.context, options.steps, shape.seed)
    blocks = range(0, options.steps, BLOCK_STEPS)
    for begin in track(blocks, "training", disable=not sys.stderr.isatty()):
        for way in (staged, whole):  # in turns, so that both see the same machine
            way.train(batches[begin : begin + BLOCK_STEPS])
    seen, planned = timelines(pipeline.step.trace(), ordered)
    print(f"\n{options.schedule}, if every task took as long:\n{as_text(ordered)}\n")
    show_stages(pipeline.held(), ordered, seen)
    show_ways((staged, whole), seen, planned)
    draw(options, (staged, whole), seen, planned)
    # Of the way they went, that is: what they began with is the same in any case.
    apart = distance(pipeline.parameters() - first, whole.way.parameters() - first)
    return is_near("parameters' changes", apart, options.dtype)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add: Any = parser.add_argument
    add("--schedule", choices=SCHEDULES, default="1f1b", help="the stages' order (default 1f1b)")
    add("--micro-batches", type=positive, default=4, help="of each batch (default 4)")
    add("--batch-size", type=positive, default=8, help="pieces of text of a step (default 8)")
    add("--steps", type=positive, default=60, help=f"{MIN_STEPS} or more (default 60)")
    add("--out", type=Path, default=Path("out/pipeline_training"), help="for picture and program")
    add_options(parser, context=64)
    options = parser.parse_args(arguments)
    if options.batch_size % options.micro_batches:
        parser.error(
            f"--batch-size {options.batch_size}: not a multiple of "
            f"--micro-batches {options.micro_batches}"
        )
    if options.steps < MIN_STEPS:
        parser.error(f"--steps {options.steps}: at least {MIN_STEPS}, of which the first warm up")
    check_options(parser, options)
    return options


if __name__ == "__main__":
    sys.exit(interruptible(main))
