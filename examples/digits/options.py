"""The example's command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import positive

from digits.data import NUM_TRAIN_IMAGES, steps_per_epoch
from digits.devices import what_device

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_EPOCHS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for, checked."""

    workers: int
    device: str
    epochs: int
    batch_size: int
    seed: int
    dtype: str
    rounds: int
    out: Path

    @property
    def steps(self) -> int:
        """Count the steps of the whole training."""
        return self.epochs * steps_per_epoch(self.batch_size)

    @property
    def title(self) -> str:
        """Describe the run in a line."""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"Handwritten digits on {workers} ({self.device}, {self.dtype}, seed {self.seed})"


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line; exit with an explanation where it makes no sense."""
    parser = make_parser()
    options = Options(**vars(parser.parse_args(arguments)))
    if options.batch_size > NUM_TRAIN_IMAGES:
        parser.error(f"--batch-size {options.batch_size}: there are {NUM_TRAIN_IMAGES} images")
    if options.workers > options.batch_size:
        parser.error(
            f"--workers {options.workers}: more than the images of a batch ({options.batch_size})"
        )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}")
    return options


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        description="Train on handwritten digits, data-parallel through one compiled graph.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workers", type=positive, default=2, metavar="N", help="number of actors")
    add(
        "--device",
        type=what_device,
        default="auto",
        help="where they compute: auto, cpu or cuda",
    )
    add(
        "--epochs",
        type=positive,
        default=DEFAULT_EPOCHS,
        metavar="N",
        help="passes over the images",
    )
    add(
        "--batch-size", type=positive, default=64, metavar="N", help="images of all workers' shards"
    )
    add(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="of the split, the start and the batches",
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="of the parameters")
    add("--rounds", type=positive, default=6, metavar="N", help="rounds of the timing comparison")
    add("--out", type=Path, default=Path("out/train_digits"), metavar="DIR", help="for the results")
    return parser


def natural(text: str) -> int:
    """Read a whole number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)
