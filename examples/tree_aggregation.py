"""Add up arrays along a line and along a tree of tasks, and time both.

    python examples/tree_aggregation.py --leaves 4 8 16 32 --delay-ms 20

Each addition is a task that takes `--delay-ms` (think of a read from a disk). Along a line every
addition waits for the one before: the time grows with the number of arrays. Along a tree those of
one level run at the same time: it grows with the logarithm. Sums must agree, and the tree must win.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from arguments import milliseconds, positive

import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


@runtime.remote
def make(seed: int, size: int) -> NDArray[Any]:
    """Make one of the arrays."""
    made: NDArray[Any] = np.random.default_rng(seed).integers(0, 1000, size)
    return made


@runtime.remote
def add(first: NDArray[Any], second: NDArray[Any], delay_s: float) -> NDArray[Any]:
    """Add two arrays, slowly."""
    time.sleep(delay_s)
    total: NDArray[Any] = np.add(first, second)
    return total


def along_a_line(refs: Sequence[Any], delay_s: float) -> Any:
    """Add one array after the other to the sum so far."""
    total = refs[0]
    for ref in refs[1:]:
        total = add.remote(total, ref, delay_s)
    return total


def along_a_tree(refs: Sequence[Any], delay_s: float) -> Any:
    """Add neighbours until one is left; a sum that is done meets the next at once."""
    level = list(refs)
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [add.remote(first, second, delay_s) for first, second in pairs] + odd
    return level[0]


def timed(
    aggregate: Callable[[Sequence[Any], float], Any], refs: Sequence[Any], delay_s: float
) -> tuple[float, NDArray[Any]]:
    """Return how long it took, and the sum."""
    began = perf_counter()
    total = runtime.get(aggregate(refs, delay_s))
    return perf_counter() - began, total


def compare(leaves: int, size: int, delay_s: float) -> bool:
    """Print a line of the table; return whether the sums are right."""
    refs = [make.remote(seed, size) for seed in range(leaves)]
    expected = np.sum(runtime.get(refs), axis=0)
    line_s, line = timed(along_a_line, refs, delay_s)
    tree_s, tree = timed(along_a_tree, refs, delay_s)
    ok = bool((line == expected).all() and (tree == expected).all())
    levels = math.ceil(math.log2(leaves))
    row = f"{leaves:>6}  {leaves - 1:>5}  {levels:>6}  {line_s:>6.3f}  {tree_s:>6.3f}"
    print(f"{row}  {line_s / tree_s:>6.1f}x  {'equal' if ok else 'DIFFERENT'}", flush=True)
    if leaves >= 8 and delay_s and line_s < tree_s:
        print("the tree was slower than the line", file=sys.stderr)
        return False
    return ok


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    delay_s = options.delay_ms / 1000
    # Logical CPUs: they say how many tasks may run at once, and these mostly wait.
    with runtime.init(num_cpus=options.parallel):
        warm = [add.remote(np.zeros(1), np.zeros(1), 0.05) for _ in range(options.parallel)]
        runtime.get(warm)
        print("leaves   adds  levels  line s  tree s  faster  sums")
        checks = [compare(leaves, options.size, delay_s) for leaves in options.leaves]
    ok = all(checks)
    print("check: every sum is right" if ok else "check: FAILED")
    return 0 if ok else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_to = parser.add_argument
    add_to(
        "--leaves", type=positive, nargs="+", default=[4, 8, 16, 32], help="arrays, one row each"
    )
    add_to("--size", type=positive, default=100_000, help="numbers in an array (%(default)s)")
    add_to("--delay-ms", type=milliseconds, default=20, help="what an addition takes (%(default)s)")
    add_to("--parallel", type=positive, default=8, help="tasks at once (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
