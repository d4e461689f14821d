"""Train a softmax regression on handwritten digits with a parameter server.

    python examples/parameter_server.py --workers 3 --rounds 15

The server is an actor that holds the weights. Its handle is an argument of the tasks: each fetches
the newest weights, computes a gradient on its shard and pushes it, without waiting for the others.
This process only looks on, and checks the accuracy on images that nobody trained with.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from arguments import positive
from sklearn.datasets import load_digits

import runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

CLASSES = 10
HELD_OUT = 400
WANTED_ACCURACY = 0.9


class ParameterServer:
    """Holds the weights; calls run one at a time, so nothing needs a lock."""

    def __init__(self, features: int) -> None:
        self.weights = np.zeros((features, CLASSES))
        self.pushes = 0

    def pull(self) -> Array:
        """Return the newest weights."""
        return self.weights

    def push(self, gradient: Array) -> int:
        """Take a step; return how many there were."""
        self.weights = self.weights - 0.3 * gradient
        self.pushes += 1
        return self.pushes


@runtime.remote
def train(server: Any, images: Array, labels: Array, steps: int) -> int:
    """Take steps on a shard; return how many steps all tasks have taken by then."""
    random = np.random.default_rng()
    pushes = []
    for _ in range(steps):
        batch = random.choice(len(images), 64, replace=False)
        weights = runtime.get(server.pull.remote())
        pushes.append(server.push.remote(gradient(weights, images[batch], labels[batch])))
    latest: int = max(runtime.get(pushes))
    return latest


def gradient(weights: Array, images: Array, labels: Array) -> Array:
    """Return the cross-entropy's gradient."""
    scores = images @ weights
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    likely[np.arange(len(labels)), labels] -= 1
    total: Array = images.T @ likely
    return total / len(labels)


def shuffled_digits() -> tuple[Array, Array]:
    """Return images, with a column of ones for the bias, and labels."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = np.hstack([digits.data / 16, np.ones((len(order), 1))])
    return images[order], digits.target[order]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    images, labels = shuffled_digits()
    pushes, accuracy = 0, 0.0
    workers = options.workers
    with runtime.init(num_cpus=workers):
        server = runtime.remote(ParameterServer).remote(images.shape[1])
        # Stored once, not sent with every task.
        shards = [
            [runtime.put(array[HELD_OUT + rank :: workers]) for array in (images, labels)]
            for rank in range(workers)
        ]
        began = perf_counter()
        for number in range(options.rounds):
            tasks = [train.remote(server, *shard, options.steps) for shard in shards]
            pushes = max(runtime.get(tasks))
            found = (images[:HELD_OUT] @ runtime.get(server.pull.remote())).argmax(axis=1)
            accuracy = float((found == labels[:HELD_OUT]).mean())
            print(f"round {number + 1:>2}  accuracy {accuracy:6.1%}", flush=True)
        seconds = perf_counter() - began

    print(f"{pushes} gradients in {seconds:.2f} s, {pushes / seconds:.0f} a second")
    ok = pushes == options.rounds * workers * options.steps and accuracy >= WANTED_ACCURACY
    print(f"check: {'ok' if ok else 'FAILED'}")
    return 0 if ok else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=positive, default=3, help="tasks that train at once")
    parser.add_argument("--rounds", type=positive, default=15, help="looks at the accuracy")
    parser.add_argument("--steps", type=positive, default=20, help="gradients per task and round")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
