"""Where the ranks of an example compute."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch

import runtime

TRANSPORTS = ("auto", "gloo", "nccl", "shm", "cuda_ipc")
"""What collectives may run on."""
SHARES = 10_000
"""Fractions of a GPU are counted in ten-thousandths."""


def on_device(cls: type, device: str, num_actors: int) -> Any:
    """Make an actor class of `cls`, of which `num_actors` share the GPUs if they need them."""
    made = runtime.remote(cls)
    if device == "cuda":
        share = int(num_gpus() / num_actors * SHARES) / SHARES
        return made.options(num_gpus=min(1, share))
    return made


def what_device(text: str) -> str:
    """Read a device; `auto` is a GPU if there is one."""
    if text not in {"auto", "cpu", "cuda"}:
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda")
    found = num_gpus() > 0
    if text == "cuda" and not found:
        raise argparse.ArgumentTypeError("torch sees no GPU")
    return text if text != "auto" else "cuda" if found else "cpu"


def num_gpus() -> int:
    """Return how many GPUs torch sees."""
    return torch.cuda.device_count()


def num_cores() -> int:
    """Return how many cores the system lets this process use."""
    return len(os.sched_getaffinity(0))
