"""Count the words of the standard library's source, with tasks that depend on each other.

    python examples/tasks_dependencies.py --files 1500 --parts 8 --top 10

A task counts the words of some files; a task merges two counts. A merge takes the references of
what it merges: it starts by itself once both are there. The result is checked against a plain loop.
"""

from __future__ import annotations

import argparse
import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from arguments import positive

import runtime

if TYPE_CHECKING:
    from collections.abc import Sequence


def count_words(paths: Sequence[Path]) -> Counter[str]:
    """Count the words of some files."""
    words: Counter[str] = Counter()
    for path in paths:
        words.update(re.findall(r"[a-z]{3,}", path.read_text("utf-8", "replace").lower()))
    return words


@runtime.remote
def count(paths: Sequence[Path]) -> Counter[str]:
    """Count the words of some files, in a worker process."""
    return count_words(paths)


@runtime.remote
def merge(first: Counter[str], second: Counter[str]) -> Counter[str]:
    """Add two counts. References among a task's arguments arrive as their values."""
    return first + second


@runtime.remote
def most_common(words: Counter[str], top: int) -> tuple[int, list[tuple[str, int]]]:
    """Return the number of words and the most frequent ones: small, so worth sending back."""
    return sum(words.values()), words.most_common(top)


def count_in_parallel(paths: Sequence[Path], parts: int, top: int) -> Any:
    """Draw up the whole computation, then wait once."""
    counts = [count.remote(paths[part::parts]) for part in range(parts)]
    while len(counts) > 1:
        pairs = zip(counts[::2], counts[1::2], strict=False)
        odd = counts[-1:] if len(counts) % 2 else []
        counts = [merge.remote(first, second) for first, second in pairs] + odd
    return runtime.get(most_common.remote(counts[0], top))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in sorted(folder.rglob("*.py")) if "site-packages" not in path.parts]
    paths = paths[: options.files]
    if not paths:
        print(f"there are no source files in {folder}", file=sys.stderr)
        return 1

    with runtime.init(num_cpus=options.cpus):
        num_cpus = int(runtime.cluster_resources()["CPU"])
        runtime.get([count.remote(paths[:50]) for _ in range(num_cpus)])  # starts the workers
        began = perf_counter()
        total, top = count_in_parallel(paths, min(options.parts, len(paths)), options.top)
        parallel_s = perf_counter() - began

    began = perf_counter()
    expected = count_words(paths)
    alone_s = perf_counter() - began

    print(f"{total:,} words in {len(paths)} files of {folder}")
    width = max(len(word) for word, _ in top)
    for word, times in top:
        print(f"  {word:{width}}  {times:>8,}  {'#' * (40 * times // top[0][1])}")
    print(f"tasks {parallel_s:.2f} s, a plain loop {alone_s:.2f} s")
    ok = total == sum(expected.values()) and all(expected[word] == times for word, times in top)
    print("check: the tasks and the loop agree" if ok else "check: THE COUNTS DIFFER")
    return 0 if ok else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--files", type=positive, default=1500, help="how many source files to read (%(default)s)")
    add("--parts", type=positive, default=8, help="tasks that count (%(default)s)")
    add("--top", type=positive, default=10, help="words to print (%(default)s)")
    add("--cpus", type=positive, default=None, help="logical CPUs (those of the machine)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
