"""The same work without us, on the same GPU: what the GPU benchmarks stand beside.

    python -m benchmarks.gpu_raw copies 4194304 16

``copies N EACH``: two copies of N bytes on one stream, `EACH` times. ``shared N EACH``: a tensor
that goes to and fro between two processes by torch's own sharing (`reduce_tensor`), and is cloned
on arrival. ``layers STAGES EACH``: the pipeline's work for `EACH` micro-batches in one process.
``sums N RANKS``: tensors of as many ranks summed, and the sum copied to each. Times are divided by
`EACH`. Speaks as `benchmarks.served` says.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_actors import Layers, device, synchronize
from benchmarks.rounds import timed
from benchmarks.served import served

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks.rounds import Side


def raw(name: str, kind: str, size: int, each: int) -> AbstractContextManager[Side]:
    """Start one of these in a process of its own, as a side of that name."""
    arguments = [sys.executable, "-m", "benchmarks.gpu_raw", kind, str(size), str(each)]
    return served(name, arguments, dict(os.environ))


def main(arguments: list[str]) -> None:
    """Be one side."""
    kind, size, each = arguments[0], int(arguments[1]), int(arguments[2])
    make = {"copies": _copies, "shared": _shared, "layers": _layers, "sums": _sums}[kind]
    trip = make(size, each)
    block = timed(trip, warm_trips=5)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    divisor = 1 if kind == "sums" else each
    for line in sys.stdin:
        sys.stdout.write(json.dumps([time // divisor for time in block(int(line))]) + "\n")
        sys.stdout.flush()


def _copies(nbytes: int, each: int) -> Callable[[], None]:
    source, middle, target = (_ones(nbytes) for _ in range(3))

    def trip() -> None:
        for _ in range(each):
            middle.copy_(source)
            target.copy_(middle)
        synchronize()

    return trip


def _shared(nbytes: int, each: int) -> Callable[[], None]:
    from torch import multiprocessing  # noqa: PLC0415  registers torch's reductions

    context: Any = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    peer = context.Process(target=_bounce, args=(theirs,), daemon=True)
    peer.start()
    theirs.close()  # so that each sees the other's end
    own = _ones(nbytes)

    def trip() -> None:
        value = own
        for _ in range(each // 2):
            mine.send(value)
            value = mine.recv().clone()
        synchronize()

    trip()
    return trip


def _bounce(connection: Any) -> None:
    """Send everything back, as a tensor of this process."""
    value = None
    while True:
        try:
            got = connection.recv()
        except EOFError:
            return
        value = got.clone()  # a tensor that was received cannot be sent; kept until it has arrived
        del got
        connection.send(value)


def _layers(stages: int, each: int) -> Callable[[], None]:
    layers = [Layers() for _ in range(stages)]

    def trip() -> None:
        for _ in range(each):
            value = layers[0].input
            for one in layers:
                value = one.run(value)
        synchronize()

    return trip


def _sums(nbytes: int, ranks: int) -> Callable[[], None]:
    import torch  # noqa: PLC0415  nobody else here needs it by name

    tensors = [_ones(nbytes) for _ in range(ranks)]
    results = [torch.empty_like(one) for one in tensors]

    def trip() -> None:
        torch.add(tensors[0], tensors[1], out=results[0])
        for one in tensors[2:]:
            results[0].add_(one)
        for result in results[1:]:
            result.copy_(results[0])
        synchronize()

    return trip


def _ones(nbytes: int) -> Any:
    import torch  # noqa: PLC0415  see main

    return torch.ones(nbytes // 4, device=device())


if __name__ == "__main__":
    main(sys.argv[1:])
