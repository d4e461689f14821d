"""Scikit-learn's handwritten digits, split once, and the batches drawn from them.

Everything follows from a seed, so processes that share one draw the same batches without a word
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

NUM_IMAGES = 1797
NUM_TEST_IMAGES = 360
NUM_TRAIN_IMAGES = NUM_IMAGES - NUM_TEST_IMAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images of shape (n, 1, 8, 8), scaled to mean 0 and deviation 1, and their labels."""

    train_images: NDArray[np.float64]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float64]
    test_labels: NDArray[np.int64]


def load(seed: int) -> Digits:
    """Read the images that come with scikit-learn and hold some back for testing."""
    # Seconds that actors, who get the images, are spared.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    pixels, labels = load_digits(return_X_y=True)
    images = ((pixels - pixels.mean()) / pixels.std()).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(seed).permutation(NUM_IMAGES)
    test, train = order[:NUM_TEST_IMAGES], order[NUM_TEST_IMAGES:]
    return Digits(
        train_images=images[train],
        train_labels=labels[train].astype(np.int64),
        test_images=images[test],
        test_labels=labels[test].astype(np.int64),
    )


def steps_per_epoch(batch_size: int) -> int:
    """Count the batches of one epoch; the last may be smaller."""
    return -(-NUM_TRAIN_IMAGES // batch_size)


def draw_batches(seed: int, batch_size: int, steps: Iterable[int]) -> list[NDArray[np.int64]]:
    """Return, for each of these steps, the indices of the images it trains on."""
    orders: dict[int, NDArray[np.int64]] = {}
    batches = []
    for step in steps:
        epoch, position = divmod(step, steps_per_epoch(batch_size))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng((seed, epoch)).permutation(NUM_TRAIN_IMAGES)
        batches.append(orders[epoch][position * batch_size : (position + 1) * batch_size])
    return batches
