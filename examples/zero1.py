"""Train data-parallel with the optimizer's state sharded over the ranks (ZeRO, stage 1).

    python examples/zero1.py --ranks 4

Adam keeps two numbers for every parameter. Data-parallel training keeps all of them on every rank,
though each rank's are the same. Here every rank keeps a part: the gradients are reduced and
scattered, each rank updates its part of the parameters, and these are gathered again. All ranks
together send what one allreduce would.

The run checks itself against Adam on whole batches in one process, shows what each rank holds, and
times the same training with everything on every rank.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from statistics import fmean, median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from digits.interrupt import end_on_interrupt, interruptible

if __name__ == "__main__":
    end_on_interrupt()  # the imports take seconds

import torch
from arguments import positive
from digits.data import Digits, draw_batches, load
from digits.devices import TRANSPORTS, on_device, what_device
from digits.replica import build_network, flatten, torch_dtype
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import runtime
from collective import ReduceOp, allgather, allreduce, reducescatter
from compiled_dag import InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from compiled_dag import CompiledDAG

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""Of the parameters' relative distance; Adam magnifies the rounding of small gradients."""
RATE, BETA_1, BETA_2, EPSILON = 2e-3, 0.9, 0.999, 1e-8
BLOCK_STEPS = 10
"""Steps of one way of training before the other has its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all ranks have in common."""

    world_size: int
    device: str
    dtype: str
    seed: int


class Adam:
    """Adam (Kingma and Ba, 2015, algorithm 1): two numbers for every parameter.

    torch.optim would do as well, but its first use costs every process seconds of imports.
    """

    def __init__(self, parameters: Tensor) -> None:
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self._steps = 0

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Change the parameters in place."""
        self._steps += 1
        self.mean.lerp_(gradient, 1 - BETA_1)
        self.square.lerp_(gradient.square(), 1 - BETA_2)
        scale = (self.square / (1 - BETA_2**self._steps)).sqrt_().add_(EPSILON)
        parameters.addcdiv_(self.mean, scale, value=-RATE / (1 - BETA_1**self._steps))


class Rank:
    """One rank: the whole network, and the optimizer's state of its part of the parameters."""

    def __init__(self, rank: int, job: Job, digits: Digits, *, sharded: bool = True) -> None:
        self._rank, self._job = rank, job
        dtype = torch_dtype(job.dtype)
        self._images = torch.tensor(digits.train_images, dtype=dtype, device=job.device)
        self._labels = torch.tensor(digits.train_labels, device=job.device)
        self._network = build_network(job.seed).to(job.device, dtype)
        self._parameters, self._gradients = flatten(self._network)
        # Parts of one size, so that the last one may be padded.
        self._part_size = -(-len(self._parameters) // job.world_size)
        begin = rank * self._part_size if sharded else 0
        end = begin + self._part_size if sharded else len(self._parameters)
        self._part = self._parameters[begin:end]
        self._adam = Adam(self._part)
        self._loss = 0.0

    def backward(self, batch: NDArray[np.int64]) -> Tensor:
        """Return the gradient of this rank's share; the mean of all shares is the batch's."""
        ranks, size = self._job.world_size, len(batch)
        index = torch.tensor(batch[self._rank * size // ranks : (self._rank + 1) * size // ranks])
        scores = self._network(self._images[index])
        summed = nn.functional.cross_entropy(scores, self._labels[index], reduction="sum")
        loss = summed * (ranks / size)
        self._gradients.zero_()
        loss.backward()
        self._loss = loss.item()
        return self._gradients

    def backward_padded(self, batch: NDArray[np.int64]) -> Tensor:
        """Return `backward`'s gradient, filled up to one part of the same size for each rank."""
        missing = self._part_size * self._job.world_size - len(self._parameters)
        return nn.functional.pad(self.backward(batch), (0, missing))

    def update(self, gradient: Tensor) -> Tensor:
        """Take Adam's step on this rank's part; return the part, filled up to the common size."""
        self._adam.step(self._part, gradient[: len(self._part)])
        return nn.functional.pad(self._part, (0, self._part_size - len(self._part)))

    def install(self, parameters: Tensor) -> float:
        """Take the parameters of all ranks; return this rank's share of the loss."""
        self._parameters.copy_(parameters[: len(self._parameters)])
        return self._loss

    def step(self, gradient: Tensor) -> float:
        """Take Adam's step on all parameters; return this rank's share of the loss."""
        self._adam.step(self._part, gradient)
        return self._loss

    def parameters(self) -> NDArray[Any]:
        """Return a copy of all parameters."""
        vector: NDArray[Any] = self._parameters.cpu().numpy().copy()
        return vector

    def held_bytes(self) -> dict[str, int]:
        """Return what this rank holds, by kind."""
        return {
            "parameters": self._parameters.nbytes,
            "gradients": self._gradients.nbytes,
            "optimizer": self._adam.mean.nbytes + self._adam.square.nbytes,
        }


def sharded_step(ranks: Sequence[Any], transport: str | None) -> MultiOutputNode:
    """Draw a step that keeps a part of the optimizer's state on each rank."""
    with InputNode() as batch:
        gradients = [rank.backward_padded.bind(batch) for rank in ranks]
        parts = reducescatter.bind(gradients, op=ReduceOp.AVG, transport=transport)
        updated = [rank.update.bind(part) for rank, part in zip(ranks, parts, strict=True)]
        parameters = allgather.bind(updated, transport=transport)
        return MultiOutputNode(
            [rank.install.bind(whole) for rank, whole in zip(ranks, parameters, strict=True)]
        )


def replicated_step(ranks: Sequence[Any], transport: str | None) -> MultiOutputNode:
    """Draw the same step with all of the optimizer's state on each rank."""
    with InputNode() as batch:
        gradients = allreduce.bind(
            [rank.backward.bind(batch) for rank in ranks], op=ReduceOp.AVG, transport=transport
        )
        return MultiOutputNode(
            [rank.step.bind(gradient) for rank, gradient in zip(ranks, gradients, strict=True)]
        )


@dataclass(slots=True)
class Run:
    """One way of training, and what it took."""

    name: str
    ranks: list[Any]
    step: CompiledDAG
    losses: list[float]
    block_s: list[float]

    def train(self, batches: Sequence[NDArray[np.int64]]) -> None:
        """Train on batches."""
        began = perf_counter()
        for batch in batches:
            self.losses.append(fmean(runtime.get(self.step.execute(batch))))
        self.block_s.append((perf_counter() - began) / len(batches))

    def row(self) -> list[str]:
        """Return its line of the table."""
        held = runtime.get(self.ranks[0].held_bytes.remote())
        sizes = [f"{held[kind] / 1e6:.2f} MB" for kind in ("parameters", "gradients", "optimizer")]
        step_ms = median(self.block_s) * 1e3
        return [self.name, *sizes, f"{sum(held.values()) / 1e6:.2f} MB", f"{step_ms:.1f} ms"]


def start(job: Job, digits: Any, transport: str | None, *, sharded: bool) -> Run:
    """Start the ranks and compile their step."""
    make = on_device(Rank, job.device, 2 * job.world_size)
    ranks = [make.remote(rank, job, digits, sharded=sharded) for rank in range(job.world_size)]
    draw = sharded_step if sharded else replicated_step
    name = "sharded (ZeRO-1)" if sharded else "replicated"
    return Run(name, ranks, draw(ranks, transport).experimental_compile(), [], [])


def train_alone(job: Job, digits: Digits, batches: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    """Train on the whole batches in this process; return the parameters."""
    alone = Rank(0, Job(world_size=1, device=job.device, dtype=job.dtype, seed=job.seed), digits)
    for batch in batches:
        alone.step(alone.backward(batch))
    return alone.parameters()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)  # the cores belong to the ranks
    job = Job(
        world_size=options.ranks, device=options.device, dtype=options.dtype, seed=options.seed
    )
    digits = load(job.seed)
    batches = draw_batches(job.seed, options.batch_size, range(options.steps))
    transport = None if options.transport == "auto" else options.transport
    quiet = not sys.stderr.isatty()
    with runtime.init(num_cpus=2 * job.world_size):
        images = runtime.put(digits)
        runs = [start(job, images, transport, sharded=sharded) for sharded in (True, False)]
        blocks = range(0, len(batches), BLOCK_STEPS)
        for begin in track(blocks, "training", disable=quiet):
            for run in runs:  # in turns, so that both see the same machine
                run.train(batches[begin : begin + BLOCK_STEPS])
        alone = train_alone(job, digits, batches)
        ok = report(options, runs, alone)
    return 0 if ok else 1


def report(options: argparse.Namespace, runs: Sequence[Run], alone: NDArray[Any]) -> bool:
    """Print what was found; return whether all of it is as it must be."""
    table = Table("on each rank", "parameters", "gradients", "optimizer", "in all", "step")
    for run in runs:
        table.add_row(*run.row())
    Console().print(table)
    first, last = (fmean(losses) for losses in (runs[0].losses[:10], runs[0].losses[-10:]))
    print(f"loss {first:.3f} -> {last:.3f} in {options.steps} steps on {options.ranks} ranks")
    limit, good = TOLERANCE[options.dtype], True
    for run in runs:
        found = runtime.get(run.ranks[-1].parameters.remote())
        apart = float(abs(found - alone).max() / abs(alone).max())
        good &= apart <= limit
        verb = "match" if apart <= limit else "DIFFER FROM"
        print(f"{run.name}: parameters {verb} one process: {apart:.1e} (limit {limit:g})")
    return good


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--ranks", type=positive, default=2, help="actors that train (default 2)")
    add("--steps", type=positive, default=200, help="training steps (default 200)")
    add("--batch-size", type=positive, default=64, help="images of all ranks (default 64)")
    add("--dtype", choices=list(TOLERANCE), default="float64", help="of the parameters")
    add("--device", type=what_device, default="auto", help="auto, cpu or cuda")
    add("--transport", choices=TRANSPORTS, default="auto", help="of the collectives")
    add("--seed", type=int, default=0, help="of the split, the start and the batches")
    options = parser.parse_args(arguments)
    if options.ranks > options.batch_size:
        parser.error(f"--ranks {options.ranks}: more than --batch-size {options.batch_size}")
    return options


if __name__ == "__main__":
    sys.exit(interruptible(main))
