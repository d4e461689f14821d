"""Serve many small requests in batches, with an actor whose methods are coroutines.

    python examples/async_actor.py --requests 2000 --batch 64

Hundreds of calls are under way in the actor at once. Each leaves its input and waits; when a batch
is full, or its oldest request has waited long enough, one vectorised call answers all of them. The
same requests are then served one by one, and the answers compared.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from arguments import milliseconds, positive

import runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEATURES = 256


class Model:
    """Two layers; a batch costs little more than a single input."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.first = random.normal(size=(FEATURES, 512)) / 16
        self.second = random.normal(size=(512, 10)) / 16

    def __call__(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the class of every row."""
        classes: NDArray[Any] = (np.tanh(inputs @ self.first) @ self.second).argmax(axis=1)
        return classes


class Server:
    """Gathers concurrent requests."""

    def __init__(self, seed: int, most: int, patience_s: float) -> None:
        self.model = Model(seed)
        self.most = most
        self.patience_s = patience_s
        self.waiting: list[tuple[NDArray[Any], asyncio.Future[int]]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.batches: list[int] = []

    async def classify(self, row: NDArray[Any]) -> int:
        """Answer one request; returns when its batch has been computed."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self.waiting.append((row, answer))
        if len(self.waiting) >= self.most:
            self.flush()
        elif self.timer is None:
            self.timer = loop.call_later(self.patience_s, self.flush)
        return await answer

    def flush(self) -> None:
        """Compute what waits, as one batch."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        batch, self.waiting = self.waiting, []
        self.batches.append(len(batch))
        classes = self.model(np.stack([row for row, _ in batch]))
        for (_, answer), found in zip(batch, classes, strict=True):
            answer.set_result(int(found))

    async def sizes(self) -> list[int]:
        """Return the sizes of the batches so far."""
        return self.batches


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    rows = np.random.default_rng(1).normal(size=(options.requests, FEATURES))
    with runtime.init(num_cpus=2):
        server = runtime.remote(Server).remote(0, options.batch, options.patience_ms / 1000)
        runtime.get(server.sizes.remote())
        began = perf_counter()
        answers = runtime.get([server.classify.remote(row) for row in rows])
        seconds = perf_counter() - began
        sizes = runtime.get(server.sizes.remote())

    model = Model(0)
    expected = [int(model(row[None])[0]) for row in rows]
    mean = sum(sizes) / len(sizes)
    print(f"{len(rows)} requests in {seconds:.2f} s: {len(rows) / seconds:,.0f} a second")
    print(f"{len(sizes)} batches of {min(sizes)} to {max(sizes)} requests, {mean:.1f} on average")
    ok = answers == expected and sum(sizes) == len(rows) and mean > 1
    print(f"check: {'every answer is right' if ok else 'FAILED'}")
    return 0 if ok else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--requests", type=positive, default=2000, help="(%(default)s)")
    add("--batch", type=positive, default=64, help="requests in a batch, at most (%(default)s)")
    add(
        "--patience-ms", type=milliseconds, default=2, help="longest wait for a batch (%(default)s)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
