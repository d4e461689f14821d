"""An actor that does eager operations of all kinds, drawn from a seed, and checks the results.

Every actor imports this file: nothing slow, no pytest.
"""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path
from typing import Any

import torch

import collective
import runtime
from compiled_dag.errors import CollectiveMismatchError


class Drill:
    """Operations of one rank of a group. All ranks draw the same ones: they have the same seed."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rank = collective.get_rank(name)
        self.size = collective.get_collective_group_size(name)
        self.choose = random.Random(seed)
        self.elements = 0

    def run(self, count: int) -> int:
        for _ in range(count):
            self.elements = int(10 ** self.choose.uniform(0, 5))
            self.choose.choice(KINDS)(self)
        return count

    def value(self, rank: int) -> torch.Tensor:
        """Return what a rank brings."""
        return torch.arange(self.elements, dtype=torch.float32) % 7 + rank

    def values(self) -> list[torch.Tensor]:
        return [self.value(rank) for rank in range(self.size)]

    def blanks(self) -> list[torch.Tensor]:
        return [torch.zeros(self.elements) for _ in range(self.size)]

    def root(self) -> int:
        return self.choose.randrange(self.size)

    def check(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        if not torch.equal(found, expected):
            raise AssertionError(f"rank {self.rank} of {self.name} has {found}, not {expected}")

    def check_all(self, found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
        for one, other in zip(found, expected, strict=True):
            self.check(one, other)


def allreduce(drill: Drill) -> None:
    tensor = drill.value(drill.rank)
    work = collective.allreduce(tensor, drill.name, async_op=drill.choose.random() < 0.5)
    if work is not None:
        work.wait()
    drill.check(tensor, sum(drill.values(), torch.zeros(1)))


def reduce(drill: Drill) -> None:
    root, tensor = drill.root(), drill.value(drill.rank)
    collective.reduce(tensor, root, drill.name, collective.ReduceOp.MAX)
    drill.check(tensor, drill.value(drill.size - 1 if drill.rank == root else drill.rank))


def broadcast(drill: Drill) -> None:
    root, tensor = drill.root(), drill.value(drill.rank)
    collective.broadcast(tensor, root, drill.name)
    drill.check(tensor, drill.value(root))


def allgather(drill: Drill) -> None:
    found = drill.blanks()
    collective.allgather(found, drill.value(drill.rank), drill.name)
    drill.check_all(found, drill.values())


def gather(drill: Drill) -> None:
    root, found = drill.root(), drill.blanks()
    collective.gather(drill.value(drill.rank), found, root, drill.name)
    drill.check_all(found, drill.values() if drill.rank == root else drill.blanks())


def reducescatter(drill: Drill) -> None:
    tensor = torch.zeros(drill.elements)
    collective.reducescatter(tensor, [drill.value(r) for r in range(drill.size)], drill.name)
    drill.check(tensor, drill.value(drill.rank) * drill.size)


def scatter(drill: Drill) -> None:
    root, tensor = drill.root(), torch.zeros(drill.elements)
    collective.scatter(tensor, drill.values(), root, drill.name)
    drill.check(tensor, drill.value(drill.rank))


def all_to_all(drill: Drill) -> None:
    found, own = drill.blanks(), drill.value(drill.rank)
    collective.all_to_all(found, [own + rank for rank in range(drill.size)], drill.name)
    drill.check_all(found, [one + drill.rank for one in drill.values()])


def barrier(drill: Drill) -> None:
    collective.barrier(drill.name)


def ring(drill: Drill) -> None:
    """Send to the next rank, receive from the one before."""
    if drill.size == 1:
        return
    after, before = (drill.rank + 1) % drill.size, (drill.rank - 1) % drill.size
    tensor = torch.zeros(drill.elements)
    work = collective.send(drill.value(drill.rank), after, drill.name, async_op=True)
    collective.recv(tensor, before, drill.name)
    assert work is not None
    work.wait()
    drill.check(tensor, drill.value(before))


def mismatch(drill: Drill) -> None:
    """Bring too little on one rank: an error on all, and the group goes on."""
    odd = drill.root()
    elements = drill.elements + (drill.rank == odd)
    try:
        collective.allreduce(torch.ones(elements), drill.name)
    except CollectiveMismatchError:
        return
    assert drill.size == 1, "a difference in shapes was not noticed"


KINDS = (
    *(allreduce, reduce, broadcast, allgather, gather, reducescatter, scatter, all_to_all),
    *(barrier, ring, mismatch),
)


@runtime.remote
class Driller:
    """One actor."""

    def join(self, name: str, world_size: int, rank: int, backend: str) -> None:
        collective.init_collective_group(world_size, rank, backend, name)

    def drill(self, name: str, seed: int, count: int) -> int:
        return Drill(name, seed).run(count)

    def pid(self) -> int:
        return os.getpid()

    def memory_files(self) -> list[str]:
        """Return descriptors of groups' memory."""
        gc.collect()
        links: Any = Path("/proc/self/fd").iterdir()
        found = [str(one.readlink()) for one in links if one.is_symlink()]
        return [one for one in found if "-group" in one or "-pairs" in one]
