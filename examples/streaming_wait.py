"""Estimate pi from results taken in the order they finish, with a bounded number in flight.

    python examples/streaming_wait.py --chunks 60 --in-flight 8

Chunks of darts differ a lot in size, so in their time. `runtime.wait` returns whichever is done;
its place is filled with the next chunk at once: memory stays bounded, and no slow chunk holds
others up.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from arguments import positive

import runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime import ObjectRef

TOLERANCE = 0.01


@runtime.remote
def throw(chunk: int, darts: int) -> tuple[int, int, int]:
    """Throw darts at a square; return the chunk, the hits of the circle in it, and the darts."""
    x, y = np.random.default_rng(chunk).random((2, darts))
    return chunk, int(np.count_nonzero(x * x + y * y <= 1)), darts


def stream(sizes: Sequence[int], in_flight: int) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Yield results as they come, each with the number that were in flight."""
    todo = iter(enumerate(sizes))
    pending: list[ObjectRef] = []
    while True:
        for chunk, darts in todo:
            pending.append(throw.remote(chunk, darts))
            if len(pending) == in_flight:
                break
        if not pending:
            return
        most = len(pending)
        (ready,), pending = runtime.wait(pending, num_returns=1)
        yield runtime.get(ready), most


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    scale = np.random.default_rng(0).lognormal(sigma=1.2, size=options.chunks)
    sizes = [int(1000 + options.darts * factor / scale.sum()) for factor in scale]

    order: list[int] = []
    hits = thrown = most = 0
    began = perf_counter()
    with runtime.init(num_cpus=options.cpus):
        for (chunk, new_hits, darts), pending in stream(sizes, options.in_flight):
            order.append(chunk)
            hits, thrown, most = hits + new_hits, thrown + darts, max(most, pending)
            if len(order) % options.every == 0 or len(order) == len(sizes):
                done = f"{len(order):>4} of {len(sizes)}"
                print(f"{done}  chunk {chunk:>4}  pi ~ {4 * hits / thrown:.5f}", flush=True)
    seconds = perf_counter() - began

    overtaken = sum(later < earlier for earlier, later in pairwise(order))
    print(f"{thrown:,} darts in {seconds:.2f} s; at most {most} chunks in flight")
    print(f"{overtaken} times a chunk was overtaken by a later one")
    complete = sorted(order) == list(range(len(sizes))) and thrown == sum(sizes)
    close = abs(4 * hits / thrown - math.pi) < TOLERANCE
    ok = complete and close and most <= options.in_flight
    print(f"check: {'every chunk came once, and pi is near' if ok else 'FAILED'}")
    return 0 if ok else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--chunks", type=positive, default=60, help="tasks (%(default)s)")
    add("--darts", type=positive, default=30_000_000, help="all together, about (%(default)s)")
    add("--in-flight", type=positive, default=8, help="tasks at once, at most (%(default)s)")
    add("--every", type=positive, default=5, help="print each so many results (%(default)s)")
    add("--cpus", type=positive, default=None, help="logical CPUs (those of the machine)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
