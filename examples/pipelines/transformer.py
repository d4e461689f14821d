"""A small transformer that predicts the next character: all of it, or the layers of one stage.

A layer's first parameters follow from the seed and the layer's number alone, so every process
builds its own layers and no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from arguments import positive
from digits.devices import num_cores, what_device
from digits.replica import torch_dtype
from torch import Tensor, nn

from pipelines.text import CHARACTERS

if TYPE_CHECKING:
    import argparse

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Of the distance between what a pipeline computes and what one process does, relative."""
MIN_STAGES, MOST_CONTEXT = 2, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all processes have to know of the model."""

    layers: int
    width: int
    heads: int
    context: int
    """Tokens of a piece of text."""
    seed: int
    dtype: str
    device: str

    @staticmethod
    def of(options: argparse.Namespace) -> Shape:
        """Return the shape that a command line asks for."""
        return Shape(
            layers=options.layers,
            width=options.width,
            heads=4,
            context=options.context,
            seed=options.seed,
            dtype=options.dtype,
            device=options.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A stage among others."""

    stage: int = 0
    num_stages: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it gets the text."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether it predicts."""
        return self.stage == self.num_stages - 1

    def blocks(self, shape: Shape) -> range:
        """Return the numbers of its blocks."""
        stages = self.num_stages
        return range(shape.layers * self.stage // stages, shape.layers * (self.stage + 1) // stages)


class Embedding(nn.Module):
    """Tokens to vectors, by what they are and where."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(len(CHARACTERS), shape.width)
        self.place = nn.Embedding(shape.context, shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return a vector for every token."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return cast("Tensor", self.token(tokens) + self.place(places))


class Block(nn.Module):
    """Attention to what came before, then a layer for every token by itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attended, self.mixed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, values: Tensor) -> Tensor:
        """Return vectors of the same shape."""
        pieces, length, width = values.shape
        asked = self.ask(self.attended(values)).view(pieces, length, 3, self.heads, -1)
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        values = values + self.answer(found.transpose(1, 2).reshape(pieces, length, width))
        hidden = nn.functional.gelu(self.up(self.mixed(values)))
        return cast("Tensor", values + self.down(hidden))


class Head(nn.Sequential):
    """Vectors to scores of every character that may be next."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(nn.LayerNorm(shape.width), nn.Linear(shape.width, len(CHARACTERS)))


def build(shape: Shape, cut: Cut) -> nn.Sequential:
    """Make the layers of a stage."""
    layers: list[nn.Module] = []
    if cut.is_first:
        torch.manual_seed(_layer_seed(shape, -1))
        layers.append(Embedding(shape))
    for number in cut.blocks(shape):
        torch.manual_seed(_layer_seed(shape, number))
        layers.append(Block(shape))
    if cut.is_last:
        torch.manual_seed(_layer_seed(shape, shape.layers))
        layers.append(Head(shape))
    return nn.Sequential(*layers).to(shape.device, torch_dtype(shape.dtype))


def num_parameters(shape: Shape, cut: Cut) -> int:
    """Count the parameters of a stage."""
    return sum(parameter.numel() for parameter in build(shape, cut).parameters())


def travelling(node: Any, device: str) -> Any:
    """Say that a node's value goes from GPU to GPU, where there are GPUs."""
    return node.with_tensor_transport("accelerator") if device == "cuda" else node


def is_near(what: str, apart: float, dtype: str) -> bool:
    """Print how far something is from what one process computes; return if it may be so far."""
    limit = TOLERANCE[dtype]
    verb = "match" if apart <= limit else "DIFFER FROM"
    print(f"{what} {verb} those of one process: {apart:.1e} (limit {limit:g})")
    return apart <= limit


def _layer_seed(shape: Shape, number: int) -> int:
    return shape.seed * 1000 + number + 1


def surprise(scores: Tensor, following: Tensor) -> Tensor:
    """Return how unlikely, in nats, each of the tokens was that followed; of their shape."""
    flat = nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten(), reduction="none")
    return flat.view_as(following)


def add_options(parser: argparse.ArgumentParser, context: int) -> None:
    """Let a command line say what the model is, and how it is cut."""
    add: Any = parser.add_argument
    add("--stages", type=positive, default=2, help="actors that share the layers (default 2)")
    add("--layers", type=positive, default=4, help="blocks of the transformer (default 4)")
    add("--width", type=positive, default=128, help="of its vectors (default 128)")
    add("--context", type=positive, default=context, help=f"tokens of a piece (default {context})")
    add("--dtype", choices=list(TOLERANCE), default="float32", help="of parameters and values")
    add("--device", type=what_device, default="auto", help="auto, cpu or cuda")
    add("--threads", type=positive, help="of the one process (default: one a stage or core)")
    add("--seed", type=int, default=0, help="of the parameters, and of the text to train on")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with an explanation where that makes no sense; make the folder for results."""
    if options.stages < MIN_STAGES:
        parser.error(f"--stages {options.stages}: at least {MIN_STAGES}")
    if options.stages > options.layers:
        parser.error(f"--stages {options.stages}: more than --layers {options.layers}")
    if options.width % 4:
        parser.error(f"--width {options.width}: not a multiple of 4, the attention's heads")
    if options.context > MOST_CONTEXT:
        parser.error(f"--context {options.context}: at most {MOST_CONTEXT}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed {options.seed}: not from 0 to {2**32 - 1}")
    cores = num_cores()
    options.threads = options.threads or min(options.stages, cores)
    if options.threads > cores:  # they would wait for each other by spinning
        parser.error(f"--threads {options.threads}: more than the {cores} cores")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}")
