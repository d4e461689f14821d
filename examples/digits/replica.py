"""One replica of the network: what every way of training runs, whoever moves the gradients.

The actors, the raw processes and the single-process reference all use this class, so that they
differ in nothing but how a gradient gets from one rank to the others.

Two choices keep a sharded run within rounding of the whole one. The layers are smooth (GELU and
average pooling): at a ReLU's kink the last bit of a sum decides between two gradients. The
optimiser is SGD with momentum: Adam divides by the gradient's own size, which makes the rounding
of a small gradient as large as a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from digits.data import Digits

MOMENTUM = 0.9
RATE_PER_IMAGE = 0.05 / 64
MAX_RATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to train, on batches of which size."""

    batch_size: int
    steps: int

    def rate(self, step: int) -> float:
        """Return the step's learning rate: in proportion to the batch, falling to 0 at the end."""
        peak = min(MAX_RATE, RATE_PER_IMAGE * self.batch_size)
        return peak * max(0.0, 1.0 - step / self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all ranks have in common."""

    world_size: int
    device: str
    dtype: str
    seed: int
    plan: Plan


class Replica:
    """A copy of the network that computes its rank's share of every batch.

    All parameters are views of one flat tensor and all gradients of another, the *bucket*: one
    message carries them, and one line updates them.
    """

    def __init__(self, rank: int, job: Job, digits: Digits) -> None:
        prepare(job.device)
        self._rank = rank
        self._job = job
        self._train_images = self._floats(digits.train_images)
        self._train_labels = self._labels(digits.train_labels)
        self._test_images = self._floats(digits.test_images)
        self._test_labels = self._labels(digits.test_labels)
        self._network = build_network(job.seed).to(job.device, torch_dtype(job.dtype))
        self._flat, self._bucket = flatten(self._network)
        self._initial = self._flat.clone()
        self._velocity = torch.zeros_like(self._flat)
        self._loss = self._flat.new_zeros(())
        self._backward_s = 0.0
        self._step = 0

    def backward(self, batch: NDArray[np.int64]) -> Tensor:
        """Return this rank's share of the gradient, in the bucket.

        The shares' mean over the ranks is the gradient of the whole batch's mean loss, also when
        the shards differ in size: a share is the sum over the shard, times ranks over batch size.
        """
        began = perf_counter()
        ranks, size = self._job.world_size, len(batch)
        shard = batch[self._rank * size // ranks : (self._rank + 1) * size // ranks]
        self._bucket.zero_()
        if len(shard):  # the last batch of an epoch can be smaller than the number of ranks
            self._loss = self._summed_loss(shard) * (ranks / size)
            self._loss.backward()
        else:
            self._loss = self._flat.new_zeros(())
        self._backward_s = perf_counter() - began
        return self._bucket

    def step(self, gradient: Tensor) -> tuple[float, float, float]:
        """Take one optimiser step with the gradient of the whole batch.

        Returns:
            This rank's share of the loss, then the seconds spent in `backward` and in `step`.
        """
        began = perf_counter()
        self._velocity.mul_(MOMENTUM).add_(gradient)
        self._flat.sub_(self._velocity, alpha=self._job.plan.rate(self._step))
        self._step += 1
        loss = self._loss.item()
        return loss, self._backward_s, perf_counter() - began

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the share of test images that are recognised."""
        guesses = self._network(self._test_images).argmax(dim=1)
        return float((guesses == self._test_labels).double().mean())

    def parameters(self) -> NDArray[Any]:
        """Return a copy of all parameters as one vector."""
        vector: NDArray[Any] = self._flat.cpu().numpy().copy()
        return vector

    def reset(self, plan: Plan) -> None:
        """Start again from the initial parameters, with another plan."""
        self._job = replace(self._job, plan=plan)
        self._flat.copy_(self._initial)
        self._velocity.zero_()
        self._step = 0

    def _summed_loss(self, shard: NDArray[np.int64]) -> Tensor:
        index = torch.tensor(shard, device=self._job.device)
        scores = self._network(self._train_images[index])
        return nn.functional.cross_entropy(scores, self._train_labels[index], reduction="sum")

    def _floats(self, values: NDArray[np.float64]) -> Tensor:
        # torch.tensor copies: what arrives from another process is read-only.
        return torch.tensor(values, dtype=torch_dtype(self._job.dtype), device=self._job.device)

    def _labels(self, values: NDArray[np.int64]) -> Tensor:
        return torch.tensor(values, device=self._job.device)


def build_network(seed: int) -> nn.Sequential:
    """Make the network, with the same initial parameters for the same seed."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    )


def flatten(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Move parameters and gradients into two flat tensors, of which they become views."""
    parameters = list(network.parameters())
    flat = nn.utils.parameters_to_vector(parameters).detach().clone()
    bucket = torch.zeros_like(flat)
    nn.utils.vector_to_parameters(flat, parameters)
    pieces = bucket.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)  # backward() then adds in place
    return flat, bucket


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype of this name."""
    return {"float32": torch.float32, "float64": torch.float64}[name]


def prepare(device: str) -> None:
    """Make float32 mean float32: a GPU's convolutions round to 10 bits unless told not to."""
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False
