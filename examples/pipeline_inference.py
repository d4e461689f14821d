"""Run a transformer whose layers are spread over the stages of a pipeline.

    python examples/pipeline_inference.py --stages 2 --in-flight 4

Every stage is an actor with some of the layers, and each micro-batch is one execution of a graph
that leads through all of them. Several are in flight, so that all stages work at once, each on a
micro-batch of its own. For comparison the same model runs in one process.

On the cores of one machine, expect about the speed of one process with as many threads: less where
stages wait for each other, more where a single operation is too small for threads. Pipelines are
for models that no single device holds. On a busy machine the one process may take fifty times as
long, since its threads spin while they wait for each other: set OMP_WAIT_POLICY=passive there.

The model is small, and learns for some seconds how Python's standard library is written, character
by character. Then it reads on where it has not been, and says how much each character surprised it;
what the pipeline finds must be what one process finds. The picture shows what every stage did when,
and the text in the colours of its surprises.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from functools import partial
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
from pipelines.inference_report import (
    Figures,
    Surprises,
    draw,
    last_round,
    show_stages,
    show_ways,
)
from pipelines.transformer import (
    Cut,
    Shape,
    add_options,
    build,
    check_options,
    is_near,
    num_parameters,
    surprise,
    travelling,
)
from pipelines.whole import Whole, alone
from rich.progress import track
from torch import Tensor, nn

import runtime
from compiled_dag import InputNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pipelines.text import Tokens

    from compiled_dag import CompiledDAG

LEARNING_PIECES = 4
"""Of a batch to learn from."""
NUM_CHECKED = 4
"""Micro-batches whose scores are compared one by one; all surprises are."""
MIN_ROUNDS = 2


class Stage:
    """Some of the layers."""

    def __init__(self, shape: Shape, cut: Cut, parameters: NDArray[Any]) -> None:
        self._device = shape.device
        self._layers = build(shape, cut)
        of_stage = torch.tensor(parameters, device=shape.device)
        nn.utils.vector_to_parameters(of_stage, self._layers.parameters())

    @torch.inference_mode()
    def begin(self, batch: Tokens) -> Tensor:
        """Take text in."""
        values: Tensor = self._layers(torch.tensor(batch[:, :-1], device=self._device))
        return values

    @torch.inference_mode()
    def forward(self, values: Tensor) -> Tensor:
        """Take in what the stage before made; the last stage returns scores."""
        result: Tensor = self._layers(values)
        return result

    @torch.inference_mode()
    def finish(self, values: Tensor, batch: Tokens) -> NDArray[Any]:
        """Return how much each character of the text surprises."""
        following = torch.tensor(batch[:, 1:], device=self._device)
        nats: NDArray[Any] = surprise(self._layers(values), following).cpu().numpy()
        return nats


def reading(stages: Sequence[Any], device: str) -> Any:
    """Draw a micro-batch's way through the stages, to the surprises."""
    first, *middle, last = stages
    with InputNode() as batch:
        values = travelling(first.begin.bind(batch), device)
        for stage in middle:
            values = travelling(stage.forward.bind(values), device)
        return last.finish.bind(values, batch)


def scoring(stages: Sequence[Any], device: str) -> Any:
    """Draw the same way, to the scores of what might follow."""
    first, *others = stages
    with InputNode() as batch:
        values = first.begin.bind(batch)
        for stage in others:
            values = stage.forward.bind(travelling(values, device))
        return values


def read_staged(graph: CompiledDAG, in_flight: int, batches: Sequence[Tokens]) -> Surprises:
    """Execute the graph once a micro-batch, with so many in flight; return what it finds."""
    found: Surprises = []
    refs: deque[Any] = deque()
    for batch in batches:
        if len(refs) == in_flight:
            found.append(runtime.get(refs.popleft()))
        refs.append(graph.execute(batch))
    return found + [runtime.get(ref) for ref in refs]


def read_alone(model: Whole, threads: int, together: int, batches: Sequence[Tokens]) -> Surprises:
    """Read in this process, so many micro-batches at a time."""
    torch.set_num_threads(threads)
    found: Surprises = []
    for begin in range(0, len(batches), together):
        some = batches[begin : begin + together]
        found += np.split(model.surprise(np.concatenate(some)), len(some))
    return found


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
    """Learn, read, show; return whether all ways to read found the same."""
    shape = Shape.of(options)
    torch.set_num_threads(options.threads)  # of this process; the stages have one each
    length = options.batches * options.microbatch * shape.context + 1
    unknown = text.load(text.NUM_TRAINING, length)
    batches = text.in_order(unknown, options.microbatch, shape.context)
    model = learn(shape, options.learn)
    stages = start_stages(shape, options.stages, model)
    with (
        reading(stages, shape.device).experimental_compile(
            _max_inflight_executions=options.in_flight
        ) as graph,
        scoring(stages, shape.device).experimental_compile() as scores,
    ):
        ways = ways_to_read(options, model, graph)
        for _ in track(range(options.rounds), "reading", disable=not sys.stderr.isatty()):
            for way in ways:  # in turns, so that all see the same machine
                way.measure(batches)
        seen = last_round(graph.trace(), len(batches))
        apart = max(
            distance(host(runtime.get(scores.execute(batch))), host(model.scores(batch)))
            for batch in batches[:NUM_CHECKED]
        )
    show_ways(ways, seen)
    show_stages(seen)
    draw(options, ways[0], seen, batches)
    surprises = [np.concatenate(way.found) for way in ways]
    others = max(distance(nats, surprises[-1]) for nats in surprises[:-1])
    near = is_near("scores", apart, options.dtype), is_near("surprises", others, options.dtype)
    return all(near)


def learn(shape: Shape, steps: int) -> Whole:
    """Have the model learn from the first part of the text."""
    model = Whole(shape)
    tokens = text.load(0, text.NUM_TRAINING)
    batches = text.draw(tokens, LEARNING_PIECES, shape.context, steps, shape.seed)
    model.train(track(batches, "learning", disable=not sys.stderr.isatty()))
    return model


def start_stages(shape: Shape, num_stages: int, model: Whole) -> list[Any]:
    """Start the actors, each with its part of what was learned."""
    make = on_device(Stage, shape.device, num_stages)
    cuts = [Cut(stage=number, num_stages=num_stages) for number in range(num_stages)]
    ends = np.cumsum([num_parameters(shape, cut) for cut in cuts])
    parts = np.split(model.parameters(), ends[:-1])
    return [make.remote(shape, cut, part) for cut, part in zip(cuts, parts, strict=True)]


def ways_to_read(
    options: argparse.Namespace, model: Whole, graph: CompiledDAG
) -> tuple[Figures, ...]:
    """Return the pipeline, and ways of one process; the last one is what others are measured by."""
    several = options.in_flight
    threads = 1 if options.device == "cuda" else options.threads
    ways = [Figures(f"pipeline, {several} in flight", partial(read_staged, graph, several))]
    for count, together in dict.fromkeys(((threads, 1), (threads, several), (1, 1))):
        name = alone(count) if together == 1 else f"{alone(count)}, {together} at once"
        ways.append(Figures(name, partial(read_alone, model, count, together)))
    return tuple(sorted(ways, key=lambda way: way.name == alone(1)))


def host(values: Tensor) -> NDArray[Any]:
    """Return a tensor as an array."""
    array: NDArray[Any] = values.cpu().numpy()
    return array


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add: Any = parser.add_argument
    add("--microbatch", type=positive, default=2, help="pieces of a micro-batch (default 2)")
    add("--in-flight", type=positive, default=4, help="micro-batches under way (default 4)")
    add("--batches", type=positive, default=48, help="micro-batches of a round (default 48)")
    add("--rounds", type=positive, default=6, help="rounds, the first one untimed (default 6)")
    add("--learn", type=positive, default=150, help="steps to learn from text (default 150)")
    add("--out", type=Path, default=Path("out/pipeline_inference"), help="for the picture")
    add_options(parser, context=128)
    options = parser.parse_args(arguments)
    if options.rounds < MIN_ROUNDS:
        parser.error(f"--rounds {options.rounds}: at least {MIN_ROUNDS}")
    check_options(parser, options)
    return options


if __name__ == "__main__":
    sys.exit(interruptible(main))
