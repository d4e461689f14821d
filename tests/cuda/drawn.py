"""Eager operations on a fake GPU drawn at random, the same on all ranks: imported by processes."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import collective
from collective import ReduceOp
from compiled_dag import CollectiveMismatchError
from compiled_dag.cuda.device import open_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KINDS = (
    *("allreduce", "reduce", "reducescatter", "broadcast", "allgather", "gather"),
    *("scatter", "all_to_all", "barrier"),
)


@dataclass(frozen=True)
class Drawn:
    """One operation."""

    number: int
    group: str
    kind: str
    root: int
    length: int
    odd: int | None
    """The rank that brings another length, if one does."""

    @classmethod
    def draw(cls, seed: int, number: int, groups: Mapping[str, Sequence[int]]) -> Drawn:
        chance = random.Random(seed * 1_000_003 + number)
        group = chance.choice(sorted(groups))
        size = len(groups[group])
        most = chance.choice((10, 10, 1000, 1000, 1000, 300_000 + 100 * number))
        return cls(
            number=number,
            group=group,
            kind=chance.choice(_KINDS),
            root=chance.randrange(size),
            length=chance.randint(1, most),
            odd=chance.randrange(size) if chance.random() < 0.05 else None,
        )


class Player:
    """One process, in some of the groups."""

    def __init__(self, me: int, groups: Mapping[str, Sequence[int]], seed: int) -> None:
        self._me = me
        self._groups = groups
        self._seed = seed
        self._device: Any = open_device()
        self._chance = random.Random(seed * 31 + me)
        self._wrong: list[Any] = []

    def play(self, count: int) -> list[Any]:
        """Join, do operations, leave; return what was wrong."""
        mine = [name for name, ranks in sorted(self._groups.items()) if self._me in ranks]
        for name in mine:
            ranks = self._groups[name]
            collective.init_collective_group(len(ranks), ranks.index(self._me), "auto", name)
        for number in range(count):
            drawn = Drawn.draw(self._seed, number, self._groups)
            if self._me in self._groups[drawn.group]:
                self._do(drawn)
            if self._chance.random() < 0.1:
                self._device.launch(lambda: time.sleep(0.002))
        for name in mine:
            collective.destroy_collective_group(name)
        self._device.synchronize()
        return self._wrong

    def _do(self, drawn: Drawn) -> None:
        ranks = self._groups[drawn.group]
        rank, size = ranks.index(self._me), len(ranks)
        length = drawn.length + (drawn.odd == rank)
        fails = drawn.odd is not None and size > 1 and drawn.kind != "barrier"
        try:
            found = getattr(self, f"_{drawn.kind}")(drawn, rank, size, length)
        except CollectiveMismatchError:
            if not fails:
                self._wrong.append(drawn)
            return
        if fails:
            self._wrong.append((drawn, "not refused"))
        for tensor, expected in found:
            self._device.launch(
                lambda tensor, expected=expected: (
                    bool((tensor == expected).all()) or self._wrong.append((drawn, rank))
                ),
                tensor,
            )

    def _new(self, length: int, value: float) -> torch.Tensor:
        made: torch.Tensor = self._device.new(("float32", (length,)))
        self._device.launch(lambda made: made.fill_(value), made)
        return made

    def _values(self, drawn: Drawn, size: int) -> list[float]:
        return [float(drawn.number % 97 + rank) for rank in range(size)]

    def _several(self, size: int, length: int, value: Callable[[int], float]) -> list[torch.Tensor]:
        return [self._new(length, value(part)) for part in range(size)]

    def _allreduce(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        tensor = self._new(length, values[rank])
        collective.allreduce(tensor, drawn.group)
        return [(tensor, sum(values))]

    def _reduce(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        tensor = self._new(length, values[rank])
        collective.reduce(tensor, drawn.root, drawn.group, ReduceOp.MAX)
        return [(tensor, max(values) if rank == drawn.root else values[rank])]

    def _reducescatter(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        parts = self._several(size, length, lambda part: values[rank] * (part + 1))
        tensor = self._new(length, -1)
        collective.reducescatter(tensor, parts, drawn.group)
        return [(tensor, sum(values) * (rank + 1))]

    def _broadcast(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        tensor = self._new(length, values[rank])
        collective.broadcast(tensor, drawn.root, drawn.group)
        return [(tensor, values[drawn.root])]

    def _allgather(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        parts = self._several(size, length, lambda _: -1)
        collective.allgather(parts, self._new(length, values[rank]), drawn.group)
        return list(zip(parts, values, strict=True))

    def _gather(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        parts = self._several(size, length, lambda _: -1) if rank == drawn.root else None
        collective.gather(self._new(length, values[rank]), parts, drawn.root, drawn.group)
        return list(zip(parts or (), values, strict=bool(parts)))

    def _scatter(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        is_root = rank == drawn.root
        parts = self._several(size, length, values.__getitem__) if is_root else None
        tensor = self._new(length, -1)
        collective.scatter(tensor, parts, drawn.root, drawn.group)
        return [(tensor, values[rank])]

    def _all_to_all(self, drawn: Drawn, rank: int, size: int, length: int) -> Any:
        values = self._values(drawn, size)
        given = self._several(size, length, lambda part: values[rank] + 1000 * part)
        taken = self._several(size, length, lambda _: -1)
        collective.all_to_all(taken, given, drawn.group)
        return [(one, value + 1000 * rank) for one, value in zip(taken, values, strict=True)]

    @staticmethod
    def _barrier(drawn: Drawn, _rank: int, _size: int, _length: int) -> Any:
        collective.barrier(drawn.group)
        return []
