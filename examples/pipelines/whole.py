"""The model in one process: to learn, and to compare pipelines with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from digits.replica import flatten
from torch import Tensor, nn

from pipelines.transformer import Cut, Shape, build, surprise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pipelines.text import Tokens

RATE, MOMENTUM = 0.2, 0.9


class Descent:
    """Layers whose parameters are one vector, and go down their gradient with momentum."""

    def __init__(self, layers: nn.Module) -> None:
        self.parameters, self._gradient = flatten(layers)
        self._momentum = torch.zeros_like(self.parameters)

    def step(self) -> None:
        """Change the parameters in place; begin a new gradient."""
        self._momentum.mul_(MOMENTUM).add_(self._gradient)
        self.parameters.sub_(self._momentum, alpha=RATE)
        self._gradient.zero_()


class Whole:
    """All layers; batches as they come, by torch's own autograd."""

    def __init__(self, shape: Shape) -> None:
        self._device = shape.device
        self._layers = build(shape, Cut())
        self._descent = Descent(self._layers)

    def train(self, batches: Iterable[Tokens]) -> list[float]:
        """Take a step for each batch; return the losses."""
        losses = []
        for batch in batches:
            tokens = torch.tensor(batch, device=self._device)
            loss = surprise(self._layers(tokens[:, :-1]), tokens[:, 1:]).mean()
            loss.backward()
            self._descent.step()
            losses.append(loss.item())
        return losses

    @torch.inference_mode()
    def scores(self, batch: Tokens) -> Tensor:
        """Return the scores of what may follow each token."""
        scores: Tensor = self._layers(torch.tensor(batch[:, :-1], device=self._device))
        return scores

    @torch.inference_mode()
    def surprise(self, batch: Tokens) -> NDArray[Any]:
        """Return how unlikely each token was that followed."""
        following = torch.tensor(batch[:, 1:], device=self._device)
        nats: NDArray[Any] = surprise(self.scores(batch), following).cpu().numpy()
        return nats

    def parameters(self) -> NDArray[Any]:
        """Return a copy of all parameters, layer by layer."""
        vector: NDArray[Any] = self._descent.parameters.cpu().numpy().copy()
        return vector


def alone(threads: int) -> str:
    """Say what one process with so many threads is called."""
    return "one process, 1 thread" if threads == 1 else f"one process, {threads} threads"
