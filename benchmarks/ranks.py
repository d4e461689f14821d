"""Measure collectives without graphs: plain processes, one a rank, rank 0 in touch with us.

    python -m benchmarks.ranks gloo 2 1048576

``gloo`` is raw torch.distributed. ``shm`` is the floor: numpy over one shared mapping, where every
rank copies its array in, sums its part over all ranks, and copies the sum out, with a barrier that
waits as `benchmarks.slot` does. Speaks as `benchmarks.served` says.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.served import served
from benchmarks.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks.rounds import Side

_PAGE = 4096
_LIMIT_S = 60.0
_WARM_TRIPS = 3


def raw(kind: str, ranks: int, nbytes: int) -> AbstractContextManager[Side]:
    """Start the ranks of ``"gloo"`` or ``"shm"`` and make a side of them."""
    name = "floor" if kind == "gloo" else kind
    arguments = [sys.executable, "-m", "benchmarks.ranks", kind, str(ranks), str(nbytes)]
    return served(name, arguments, dict(os.environ))


def main(arguments: list[str]) -> None:
    """Be all ranks."""
    kind, ranks, nbytes = arguments[0], int(arguments[1]), int(arguments[2])
    prepare = {"gloo": _gloo, "shm": _shm}[kind]
    with tempfile.TemporaryDirectory() as folder:
        make = prepare(ranks, nbytes, folder)
        pipes = [os.pipe() for _ in range(1, ranks)]
        pids = [_fork(make, rank, pipes) for rank in range(1, ranks)]
        trip = make(0)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            for _, write in pipes:
                os.write(write, int(line).to_bytes(8, "little"))
            sys.stdout.write(json.dumps(_block(trip, int(line))) + "\n")
            sys.stdout.flush()
        for read, write in pipes:
            os.close(read)
            os.close(write)
        for pid in pids:
            os.waitpid(pid, 0)


def _fork(make: Callable[[int], Callable[[], object]], rank: int, pipes: list[Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for index, (read, write) in enumerate(pipes, start=1):
            os.close(write)
            if index != rank:
                os.close(read)
        read, _ = pipes[rank - 1]
        trip = make(rank)
        while message := os.read(read, 8):
            _block(trip, int.from_bytes(message, "little"))
    finally:
        os._exit(0)


def _block(trip: Callable[[], object], trips: int) -> list[int]:
    """Time exactly so many trips, whatever they take: all ranks do the same number."""
    times = []
    for _ in range(_WARM_TRIPS + trips):
        begin = perf_counter_ns()
        trip()
        times.append(perf_counter_ns() - begin)
    return times[_WARM_TRIPS:]


def _gloo(ranks: int, nbytes: int, folder: str) -> Callable[[int], Callable[[], object]]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch  # noqa: PLC0415  the other floor does without
    import torch.distributed as dist  # noqa: PLC0415

    def make(rank: int) -> Callable[[], object]:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks
        )
        tensor = torch.ones(nbytes // 4)
        dist.all_reduce(tensor)
        if tensor[0] != ranks:
            raise RuntimeError(f"gloo summed {ranks} ones to {tensor[0]}")
        tensor.zero_()
        return lambda: dist.all_reduce(tensor)

    return make


def _shm(ranks: int, nbytes: int, folder: str) -> Callable[[int], Callable[[], object]]:
    del folder
    items, room = nbytes // 4, -(-nbytes // _PAGE) * _PAGE
    memory = mmap.mmap(-1, _PAGE * ranks + room * (ranks + 1))
    parts = [
        np.frombuffer(memory, np.float32, items, _PAGE * ranks + room * part)
        for part in range(ranks + 1)
    ]

    def make(rank: int) -> Callable[[], object]:
        mine, total = np.ones(items, np.float32), parts[-1]
        out, span = np.empty_like(mine), slice(items * rank // ranks, items * (rank + 1) // ranks)
        terms = [part[span] for part in parts[:-1]]
        meet = _barrier(memory, rank, ranks)

        def trip() -> object:
            parts[rank][:] = mine
            meet()
            np.add(terms[0], terms[1], out=total[span])
            for term in terms[2:]:
                np.add(total[span], term, out=total[span])
            meet()
            out[:] = total
            return None

        trip()
        if items and out[0] != ranks:
            raise RuntimeError(f"the floor summed {ranks} ones to {out[0]}")
        return trip

    return make


def _barrier(memory: mmap.mmap, rank: int, ranks: int) -> Callable[[], None]:
    """Meet all ranks: each publishes an empty value in a slot of its own, and takes all others'."""
    slots = [Slot(memory, index, _give_up, _PAGE) for index in range(ranks)]
    mine, others = slots[rank], [slot for index, slot in enumerate(slots) if index != rank]

    def meet() -> None:
        mine.signal()
        for other in others:
            other.await_signal()

    return meet


def _give_up(slices: int) -> None:
    if slices > _LIMIT_S * 4:
        raise TimeoutError(f"a rank has not come for {_LIMIT_S:g} s")


if __name__ == "__main__":
    main(sys.argv[1:])
