"""Train a network whose layers are split over the ranks (tensor parallelism).

    python examples/tensor_parallel.py --ranks 4 --hidden 512

Each block is a residual MLP, x + gelu(x A) B. Every rank has some columns of A and the same rows of
B, and computes its term of the product from them alone; one allreduce adds the terms. The way back
needs one as well, for the gradient of x. No rank ever holds a whole layer.

All of a training step is one execution of one graph. The run checks itself against the same network
in one process, and shows what each rank holds.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from statistics import fmean, median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from digits.interrupt import end_on_interrupt, interruptible

if __name__ == "__main__":
    end_on_interrupt()  # the imports take seconds

import numpy as np
import torch
from arguments import positive
from digits.data import Digits, draw_batches, load
from digits.devices import TRANSPORTS, on_device, what_device
from digits.replica import torch_dtype
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import runtime
from collective import allreduce
from compiled_dag import InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PIXELS, CLASSES = 64, 10
MIN_BLOCKS = 2
RATE = 0.05
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Of the distance between two vectors of parameters, over the length of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all ranks have in common."""

    world_size: int
    num_blocks: int
    hidden: int
    device: str
    dtype: str
    seed: int


class Rank:
    """One rank's columns and rows of all blocks, and a copy of the small last layer.

    What all ranks compute alike (the residual sum, the last layer, the loss) is computed by each:
    that costs less than sending it.
    """

    def __init__(self, rank: int, job: Job, digits: Digits) -> None:
        dtype = torch_dtype(job.dtype)
        flat = digits.train_images.reshape(len(digits.train_images), PIXELS)
        self._images = torch.tensor(flat, dtype=dtype, device=job.device)
        self._labels = torch.tensor(digits.train_labels, device=job.device)
        self._ups, self._downs, self._last = build_network(job)
        share = [rank * job.hidden // job.world_size, (rank + 1) * job.hidden // job.world_size]
        self._ups = [up[:, slice(*share)].clone().requires_grad_() for up in self._ups]
        self._downs = [down[slice(*share)].clone().requires_grad_() for down in self._downs]
        self._last.requires_grad_()
        self._inputs: list[Tensor] = []
        self._terms: list[Tensor] = []
        self._labels_now = self._labels
        self._loss = 0.0

    def first(self, batch: NDArray[np.int64]) -> Tensor:
        """Begin a step; return this rank's term of the first block."""
        index = torch.tensor(batch, device=self._images.device)
        self._labels_now = self._labels[index]
        self._inputs, self._terms = [], []
        return self._term(self._images[index])

    def forward(self, product: Tensor) -> Tensor:
        """Return this rank's term of the next block, from the sum of all terms of the last."""
        return self._term(self._inputs[-1].detach() + product)

    def turn(self, product: Tensor) -> Tensor:
        """Compute the loss; return this rank's term of the gradient of the last block's x."""
        outputs = (self._inputs[-1].detach() + product).requires_grad_()
        loss = nn.functional.cross_entropy(outputs @ self._last, self._labels_now)
        loss.backward()
        self._loss = loss.item()
        assert outputs.grad is not None
        self._gradient = outputs.grad
        return self._back()

    def backward(self, product: Tensor) -> Tensor:
        """Return this rank's term of the gradient of the block before."""
        self._gradient = self._gradient + product  # by way of the residual, and of the block
        return self._back()

    def step(self, product: Tensor) -> float:
        """Go back through the first block and take a step of descent; return the loss."""
        self.backward(product)
        descend([*self._ups, *self._downs, self._last])
        return self._loss

    def parameters(self) -> tuple[list[NDArray[Any]], list[NDArray[Any]], NDArray[Any]]:
        """Return what this rank holds: its columns, its rows, the last layer."""
        ups, downs = ([p.detach().cpu().numpy() for p in part] for part in (self._ups, self._downs))
        return ups, downs, self._last.detach().cpu().numpy()

    def held_bytes(self) -> int:
        """Return the size of the parameters here."""
        return sum(part.nbytes for part in (*self._ups, *self._downs, self._last))

    def _term(self, values: Tensor) -> Tensor:
        values = values.detach().requires_grad_()
        block = len(self._terms)
        term = nn.functional.gelu(values @ self._ups[block]) @ self._downs[block]
        self._inputs.append(values)
        self._terms.append(term)
        return term.detach()

    def _back(self) -> Tensor:
        values, term = self._inputs.pop(), self._terms.pop()
        term.backward(self._gradient)
        assert values.grad is not None
        return values.grad


@torch.no_grad()
def descend(parameters: Sequence[Tensor]) -> None:
    """Take a step of gradient descent."""
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.sub_(parameter.grad, alpha=RATE)
        parameter.grad = None


def build_network(job: Job) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Make all of the network: A and B of every block, and the last layer."""
    torch.manual_seed(job.seed)
    dtype = torch_dtype(job.dtype)

    def weights(rows: int, columns: int) -> Tensor:
        drawn = torch.randn(rows, columns, dtype=torch.float64) / math.sqrt(rows)
        return drawn.to(job.device, dtype)

    ups = [weights(PIXELS, job.hidden) for _ in range(job.num_blocks)]
    downs = [weights(job.hidden, PIXELS) for _ in range(job.num_blocks)]
    return ups, downs, weights(PIXELS, CLASSES)


def training_step(
    ranks: Sequence[Any], num_blocks: int, transport: str | None = None
) -> MultiOutputNode:
    """Draw a step: through the blocks, back through them, and the step of descent."""

    def summed(terms: list[Any]) -> list[tuple[Any, Any]]:
        return list(zip(ranks, allreduce.bind(terms, transport=transport), strict=True))

    with InputNode() as batch:
        terms = [rank.first.bind(batch) for rank in ranks]
        for _ in range(num_blocks - 1):
            terms = [rank.forward.bind(product) for rank, product in summed(terms)]
        terms = [rank.turn.bind(product) for rank, product in summed(terms)]
        for _ in range(num_blocks - 2):
            terms = [rank.backward.bind(product) for rank, product in summed(terms)]
        return MultiOutputNode([rank.step.bind(product) for rank, product in summed(terms)])


def train_alone(
    job: Job, digits: Digits, batches: Sequence[NDArray[np.int64]]
) -> tuple[list[Tensor], float]:
    """Train the whole network in this process by torch's own autograd; return it, and its loss."""
    flat = digits.train_images.reshape(len(digits.train_images), PIXELS)
    images = torch.tensor(flat, dtype=torch_dtype(job.dtype), device=job.device)
    labels = torch.tensor(digits.train_labels, device=job.device)
    ups, downs, last = build_network(job)
    parameters = [parameter.requires_grad_() for parameter in (*ups, *downs, last)]
    loss = images.new_zeros(())
    for batch in batches:
        values = images[torch.tensor(batch)]
        for up, down in zip(ups, downs, strict=True):
            values = values + nn.functional.gelu(values @ up) @ down
        loss = nn.functional.cross_entropy(values @ last, labels[torch.tensor(batch)])
        loss.backward()
        descend(parameters)
    return parameters, loss.item()


def joined(ranks: Sequence[Any]) -> list[Tensor]:
    """Put the network together from what the ranks hold."""
    parts = runtime.get([rank.parameters.remote() for rank in ranks])
    ups = [np.concatenate(columns, axis=1) for columns in zip(*(p[0] for p in parts), strict=True)]
    downs = [np.concatenate(rows) for rows in zip(*(p[1] for p in parts), strict=True)]
    return [torch.tensor(part) for part in (*ups, *downs, parts[0][2])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)  # the cores belong to the ranks
    job = Job(
        world_size=options.ranks,
        num_blocks=options.blocks,
        hidden=options.hidden,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
    )
    digits = load(job.seed)
    batches = draw_batches(job.seed, options.batch_size, range(options.steps))
    transport = None if options.transport == "auto" else options.transport
    quiet = not sys.stderr.isatty()
    with runtime.init(num_cpus=job.world_size):
        images, make = runtime.put(digits), on_device(Rank, job.device, job.world_size)
        ranks = [make.remote(rank, job, images) for rank in range(job.world_size)]
        with training_step(ranks, job.num_blocks, transport).experimental_compile() as step:
            losses, step_s = [], []
            for batch in track(batches, "training", disable=quiet):
                began = perf_counter()
                losses.append(fmean(runtime.get(step.execute(batch))))
                step_s.append(perf_counter() - began)
        held = runtime.get(ranks[0].held_bytes.remote())
        found = joined(ranks)
    began = perf_counter()
    expected, loss = train_alone(job, digits, batches)
    alone_s = (perf_counter() - began) / len(batches)
    table = Table("", "parameters", "step", "last loss")
    whole = sum(parameter.nbytes for parameter in expected)
    rows = (
        (f"each of {job.world_size} ranks", held, median(step_s), losses[-1]),
        ("one process", whole, alone_s, loss),
    )
    for name, size, seconds, last in rows:
        table.add_row(name, f"{size / 1e3:.0f} kB", f"{seconds * 1e3:.2f} ms", f"{last:.6f}")
    Console().print(table)
    return 0 if matches(found, expected, job.dtype) else 1


def matches(found: Sequence[Tensor], expected: Sequence[Tensor], dtype: str) -> bool:
    """Print how far the parameters are from those of one process; return whether it is too far."""
    vector = torch.cat([part.detach().flatten().double().cpu() for part in expected])
    other = torch.cat([part.flatten().double() for part in found])
    apart, limit = float((other - vector).norm() / vector.norm()), TOLERANCE[dtype]
    verb = "match" if apart <= limit else "DIFFER FROM"
    print(f"parameters {verb} those of one process: {apart:.1e} (limit {limit:g})")
    return apart <= limit


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--ranks", type=positive, default=2, help="actors that share the layers (default 2)")
    add("--blocks", type=positive, default=3, help="residual blocks, two or more (default 3)")
    add("--hidden", type=positive, default=256, help="columns of A (default 256)")
    add("--steps", type=positive, default=300, help="training steps (default 300)")
    add("--batch-size", type=positive, default=64, help="images of a step (default 64)")
    add("--dtype", choices=list(TOLERANCE), default="float64", help="of the parameters")
    add("--device", type=what_device, default="auto", help="auto, cpu or cuda")
    add("--transport", choices=TRANSPORTS, default="auto", help="of the collectives")
    add("--seed", type=int, default=0, help="of the split, the start and the batches")
    options = parser.parse_args(arguments)
    if options.blocks < MIN_BLOCKS:
        parser.error(f"--blocks {options.blocks}: at least {MIN_BLOCKS}")
    if options.hidden < options.ranks:
        parser.error(f"--hidden {options.hidden}: fewer than --ranks {options.ranks}")
    return options


if __name__ == "__main__":
    sys.exit(interruptible(main))
